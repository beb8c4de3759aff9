//! The two parties.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;
use marill_plaintext::Tensor;
use marill_program::ValidProgram;
use marill_program::flow::{Consent, Statement};
use marill_runtime::bundle::Bundle;
use marill_runtime::correlation::store::{SetupFile, Store, StoreKey};
use marill_runtime::error::{Role, RunError};
use marill_runtime::inputs;
use marill_runtime::report::{Report, check_reference, compare};
use marill_runtime::session::{Order, Origin, admit, consents, trace};
use marill_runtime::sharing::Party;
use marill_runtime::transport::{Channel, Ends, Listener, Protection};

use super::progress::Progress;
use super::wire::{Trust, WireOptions};
use super::{Suite, check_places, print, put, supervisor, write_stats};

#[derive(Args)]
pub(super) struct ServeArguments {
    /// The server's directory: program, public and private constants
    directory: PathBuf,
    /// Own address for the client, HOST:PORT; port 0 takes a free one, and "listening on ADDRESS" tells which
    #[arg(long, value_name = "ADDRESS")]
    listen: String,
    /// The server's own inputs, where the program has such
    #[arg(long, value_name = "NPZ")]
    input: Option<PathBuf>,
    /// Where to write the outputs that the server learns
    #[arg(long, value_name = "NPZ")]
    output: Option<PathBuf>,
    /// An output that the client may learn although no input of the client goes into it; may be given again
    #[arg(long, value_name = "OUTPUT")]
    allow_reveal: Vec<String>,
    /// Where to write bytes, rounds, seconds and peak memory as JSON
    #[arg(long, value_name = "JSON")]
    stats: Option<PathBuf>,
    #[command(flatten)]
    links: LinkOptions,
    #[command(flatten)]
    kept: KeptOptions,
    #[command(flatten)]
    wire: WireOptions,
}

#[derive(Args)]
pub(super) struct RunArguments {
    /// The client's directory: program and public constants
    directory: PathBuf,
    /// The server's address, HOST:PORT
    #[arg(long, value_name = "ADDRESS")]
    connect: String,
    /// The client's inputs by name
    #[arg(long, value_name = "NPZ")]
    input: Option<PathBuf>,
    /// Where to write the outputs that the client learns
    #[arg(long, value_name = "NPZ")]
    output: Option<PathBuf>,
    #[command(flatten)]
    allow: Allow,
    /// Expected outputs, to tell how far the outputs are from them
    #[arg(long, value_name = "NPZ")]
    reference: Option<PathBuf>,
    /// Where to write bytes, rounds, seconds and peak memory as JSON
    #[arg(long, value_name = "JSON")]
    stats: Option<PathBuf>,
    #[command(flatten)]
    links: LinkOptions,
    #[command(flatten)]
    kept: KeptOptions,
    #[command(flatten)]
    wire: WireOptions,
}

/// Whom this party works with.
#[derive(Args)]
struct LinkOptions {
    /// Who makes the correlations
    #[arg(long, value_enum, default_value = "two-party")]
    suite: Suite,
    /// The other party's certificate.pem
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    /// Let the rounds begin when all correlations are there, not while they are made, so that every phase's seconds are
    /// its own; at both parties
    #[arg(long)]
    in_turn: bool,
    /// The dealer's address, with --suite dealer
    #[arg(long, value_name = "ADDRESS")]
    dealer: Option<String>,
    /// The dealer's certificate.pem, with --suite dealer
    #[arg(long, value_name = "FILE")]
    trust_dealer: Option<PathBuf>,
}

impl LinkOptions {
    fn order(&self) -> Order {
        if self.in_turn { Order::InTurn } else { Order::Streamed }
    }

    /// Where correlations come from.
    fn origin(&self, kept: Option<Origin>, dealer: Option<Channel>) -> Origin {
        match (kept, dealer) {
            (Some(kept), _) => kept,
            (None, Some(dealer)) => Origin::Dealer(dealer, self.order()),
            (None, None) => Origin::Peer { keep: None, order: self.order() },
        }
    }
}

/// What was kept.
#[derive(Args)]
struct KeptOptions {
    /// What `marill prepare` kept: setup and preprocessing are left out, and the store is used up
    #[arg(long, value_name = "FILE", requires = "key", group = "kept")]
    store: Option<PathBuf>,
    /// Where setup is kept, for this program and this peer: used where the file is there, else made. Both parties give one
    #[arg(long, value_name = "FILE", requires = "key", group = "kept")]
    setup: Option<PathBuf>,
    /// The key of the store or setup
    #[arg(long, value_name = "KEYFILE", requires = "kept")]
    key: Option<PathBuf>,
}

impl KeptOptions {
    /// Correlations or setup that were kept, looked at before anybody is called.
    fn open(&self, links: &LinkOptions, party: Party, bundle: &Bundle) -> Result<Option<Origin>> {
        let Some(key) = &self.key else { return Ok(None) };
        if links.suite == Suite::Dealer {
            bail!(
                "the dealer's correlations are not kept: leave out --store, --setup and --key, or --suite dealer"
            );
        }
        let (key, program) = (StoreKey::load(key)?, bundle.program());
        Ok(match (&self.store, &self.setup) {
            (Some(store), _) => Some(Origin::Store(Box::new(Store::open(store, &key, party, program)?))),
            (None, Some(setup)) => {
                let keep = Some(Box::new(SetupFile::open(setup, key, party, program)?));
                Some(Origin::Peer { keep, order: links.order() })
            }
            (None, None) => None,
        })
    }

    fn report(&self) -> Result<String> {
        self.setup.as_deref().map_or(Ok(String::new()), kept_setup)
    }
}

/// A line about the setup at `path`.
pub(super) fn kept_setup(path: &Path) -> Result<String> {
    let metadata = std::fs::metadata(path);
    let metadata =
        metadata.map_err(|source| RunError::File { path: path.to_owned(), action: "read", source })?;
    Ok(format!("setup kept in {}, {}\n", path.display(), print::bytes(metadata.len())))
}

/// What the client allows; `marill verify` tells what a program needs.
#[derive(Args)]
pub(super) struct Allow {
    /// An output that the server may learn: the client refuses programs with others; may be given again
    #[arg(long, value_name = "OUTPUT")]
    pub(super) allow_reveal: Vec<String>,
    /// An input that the server knows as well: the client refuses programs with others; may be given again
    #[arg(long, value_name = "INPUT")]
    pub(super) allow_public: Vec<String>,
}

impl Allow {
    pub(super) fn consent(&self) -> Consent {
        Consent {
            outputs: self.allow_reveal.iter().cloned().collect(),
            public_inputs: self.allow_public.iter().cloned().collect(),
        }
    }

    /// What the program tells whom, once both parties agree to it.
    pub(super) fn agree(&self, program: &ValidProgram) -> Result<Statement, RunError> {
        let (flow, consent) = (trace(program)?, self.consent());
        let refused = |party| move |reason| RunError::Refused { party, reason };
        consent.of_client(program, &flow).map_err(refused(Role::Client))?;
        let outputs = Consent { public_inputs: Default::default(), ..consent };
        outputs.of_server(program, &flow).map_err(refused(Role::Server))?;
        Ok(Statement::new(program, &flow))
    }
}

/// How this party reaches its peer and, where the suite has one, the dealer.
pub(super) struct Links<'a> {
    pub(super) peer: Protection,
    dealer: Option<(&'a str, Protection)>,
}

impl<'a> Links<'a> {
    /// To the peer alone.
    pub(super) fn to_peer(wire: &WireOptions, trust: Option<&Path>) -> Result<Links<'a>> {
        let [peer] = wire.protections([Trust { option: "--trust", certificate: trust }])?;
        Ok(Links { peer, dealer: None })
    }

    /// From the options, which must name a dealer where the suite has one and none where it has not.
    fn new(wire: &WireOptions, options: &'a LinkOptions) -> Result<Links<'a>> {
        let trust = options.trust.as_deref();
        match (options.suite, &options.dealer, &options.trust_dealer) {
            (Suite::Dealer, Some(address), trust_dealer) => {
                let peer = Trust { option: "--trust", certificate: trust };
                let third = Trust { option: "--trust-dealer", certificate: trust_dealer.as_deref() };
                let [peer, protection] = wire.protections([peer, third])?;
                Ok(Links { peer, dealer: Some((address, protection)) })
            }
            (Suite::Dealer, None, _) => bail!("--suite dealer needs --dealer ADDRESS"),
            (Suite::TwoParty, None, None) => Links::to_peer(wire, trust),
            (Suite::TwoParty, ..) => {
                bail!(
                    "the two-party suite has no dealer: leave out --dealer and --trust-dealer, or add --suite dealer"
                )
            }
        }
    }

    fn call_dealer(&self, wire: &WireOptions, me: Role) -> Result<Option<Channel>> {
        let ends = Ends { me, peer: Role::Dealer };
        let call = |(address, protection): &(&str, Protection)| wire.connect(address, ends, protection);
        self.dealer.as_ref().map(call).transpose()
    }
}

/// A party's directory and inputs; what the program tells is looked at before inputs are read.
fn prepare(
    directory: &Path,
    party: Party,
    consent: Consent,
    input: Option<&Path>,
) -> Result<(Bundle, BTreeMap<String, Tensor>)> {
    let bundle = Bundle::open(directory, party)?.allowing(consent);
    consents(&bundle, party)?;
    let inputs = input.map(inputs::read).transpose()?.unwrap_or_default();
    Ok((bundle, inputs))
}

pub(super) fn serve(arguments: &ServeArguments) -> Result<()> {
    supervisor::obey(arguments.wire.supervised, || {
        check_places(&[&arguments.output, &arguments.stats])?;
        let wire = &arguments.wire;
        let links = Links::new(wire, &arguments.links)?;
        let outputs = arguments.allow_reveal.iter().cloned().collect();
        let consent = Consent { outputs, ..Consent::default() };
        let (bundle, inputs) =
            prepare(&arguments.directory, Party::Server, consent, arguments.input.as_deref())?;
        // Everything that can be wrong on this machine is found before anybody is called.
        let admitted = admit(&bundle, Party::Server, inputs)?;
        let kept = arguments.kept.open(&arguments.links, Party::Server, &bundle)?;
        let ends = |peer| Ends { me: Role::Server, peer };
        let listener = Listener::bind(&arguments.listen, ends(Role::Client))?;
        // The dealer hears the server first: the client calls it only after it has reached the server.
        let dealer = links.call_dealer(wire, Role::Server)?;
        put(&format!("listening on {}\n", listener.address()))?;
        let client = wire.accept(&listener, ends(Role::Client), &links.peer)?;
        drop(listener);
        let mut progress = Progress::new(Role::Server, wire.supervised);
        let origin = arguments.links.origin(kept, dealer);
        let result = admitted.run(client, origin, &mut |p| progress.hear(p));
        progress.finish();
        let (outputs, stats) = result?;
        if let Some(path) = &arguments.output {
            inputs::write(path, &outputs)?;
        }
        let report = Report::new(Some(bundle.program()), &stats);
        write_stats(arguments.stats.as_deref(), &report)?;
        if wire.supervised {
            return Ok(());
        }
        let kept = arguments.kept.report()?;
        put(&format!("{}{kept}{}", print::outputs(&outputs), print::report(&report)))
    })
}

pub(super) fn run(arguments: &RunArguments) -> Result<()> {
    supervisor::obey(arguments.wire.supervised, || {
        check_places(&[&arguments.output, &arguments.stats])?;
        let wire = &arguments.wire;
        let links = Links::new(wire, &arguments.links)?;
        let (directory, consent) = (&arguments.directory, arguments.allow.consent());
        let (bundle, inputs) = prepare(directory, Party::Client, consent, arguments.input.as_deref())?;
        let reference = arguments.reference.as_deref().map(inputs::read).transpose()?;
        if let Some(reference) = &reference {
            check_reference(bundle.program(), reference)?;
        }
        let mask = inputs.get(print::MASK).cloned();
        let admitted = admit(&bundle, Party::Client, inputs)?;
        let kept = arguments.kept.open(&arguments.links, Party::Client, &bundle)?;
        let ends = Ends { me: Role::Client, peer: Role::Server };
        let server = wire.connect(&arguments.connect, ends, &links.peer)?;
        let dealer = links.call_dealer(wire, Role::Client)?;
        let mut progress = Progress::new(Role::Client, wire.supervised);
        let origin = arguments.links.origin(kept, dealer);
        let result = admitted.run(server, origin, &mut |p| progress.hear(p));
        progress.finish();
        let (outputs, stats) = result?;
        if let Some(path) = &arguments.output {
            inputs::write(path, &outputs)?;
        }
        let mut report = Report::new(Some(bundle.program()), &stats);
        if let Some(reference) = &reference {
            report.accuracy = Some(compare(&outputs, reference, mask.as_ref())?);
        }
        write_stats(arguments.stats.as_deref(), &report)?;
        if wire.supervised {
            return Ok(());
        }
        let kept = arguments.kept.report()?;
        put(&format!("{}{kept}{}", print::outputs(&outputs), print::report(&report)))
    })
}
