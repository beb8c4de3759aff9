//! Preprocessing ahead of the inputs.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use marill_program::flow::Consent;
use marill_runtime::bundle::Bundle;
use marill_runtime::correlation::store::{NewStore, SetupFile, StoreKey};
use marill_runtime::report::Report;
use marill_runtime::session::{self, consents};
use marill_runtime::sharing::Party;
use marill_runtime::transport::{Channel, Ends, Listener};

use super::party::{Allow, Links, kept_setup};
use super::progress::Progress;
use super::wire::WireOptions;
use super::{check_places, print, put, supervisor, write_stats};

#[derive(Args)]
pub(super) struct Arguments {
    /// The party's directory
    directory: PathBuf,
    /// Which party this is
    #[arg(long, value_enum)]
    party: PartyName,
    /// The server's own address, HOST:PORT; port 0 takes a free one, and "listening on ADDRESS" tells which
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// For the client: the server's address, HOST:PORT
    #[arg(long, value_name = "ADDRESS")]
    connect: Option<String>,
    /// The other party's certificate.pem
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    /// The store to make
    #[arg(long, value_name = "FILE")]
    store: PathBuf,
    /// Where setup is kept, for this program and this peer: used where the file is there, else made. Both parties give one
    #[arg(long, value_name = "FILE")]
    setup: Option<PathBuf>,
    /// Their key, made by `marill keygen --store-key KEYFILE`
    #[arg(long, value_name = "KEYFILE")]
    key: PathBuf,
    #[command(flatten)]
    allow: Allow,
    /// Where to write bytes, rounds, seconds and peak memory as JSON
    #[arg(long, value_name = "JSON")]
    stats: Option<PathBuf>,
    #[command(flatten)]
    wire: WireOptions,
}

#[derive(Clone, Copy, ValueEnum)]
enum PartyName {
    Client,
    Server,
}

impl Arguments {
    fn party(&self) -> Party {
        match self.party {
            PartyName::Client => Party::Client,
            PartyName::Server => Party::Server,
        }
    }

    /// The other party, when it is there.
    fn reach(&self, links: &Links<'_>) -> Result<Channel> {
        let party = self.party();
        let ends = Ends { me: party.role(), peer: party.peer().role() };
        match (party, &self.listen, &self.connect) {
            (Party::Client, None, Some(address)) => self.wire.connect(address, ends, &links.peer),
            (Party::Server, Some(address), None) => {
                let listener = Listener::bind(address, ends)?;
                put(&format!("listening on {}\n", listener.address()))?;
                self.wire.accept(&listener, ends, &links.peer)
            }
            (Party::Client, ..) => bail!("the client prepares with --connect ADDRESS, and without --listen"),
            (Party::Server, ..) => bail!("the server prepares with --listen ADDRESS, and without --connect"),
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    supervisor::obey(arguments.wire.supervised, || {
        check_places(&[&arguments.stats])?;
        let (wire, party) = (&arguments.wire, arguments.party());
        let links = Links::to_peer(wire, arguments.trust.as_deref())?;
        let consent = match party {
            Party::Client => arguments.allow.consent(),
            Party::Server => Consent { public_inputs: Default::default(), ..arguments.allow.consent() },
        };
        let bundle = Bundle::open(&arguments.directory, party)?.allowing(consent);
        consents(&bundle, party)?;
        let place = NewStore::reserve(&arguments.store, StoreKey::load(&arguments.key)?)?;
        let open = |path| SetupFile::open(path, StoreKey::load(&arguments.key)?, party, bundle.program());
        let setup = arguments.setup.as_deref().map(open).transpose()?;
        let peer = arguments.reach(&links)?;
        let mut progress = Progress::new(party.role(), wire.supervised);
        let result = session::prepare(&bundle, party, peer, place, setup, &mut |p| progress.hear(p));
        progress.finish();
        let stored = result?;
        let report = Report::new(Some(bundle.program()), &stored.stats);
        write_stats(arguments.stats.as_deref(), &report)?;
        if wire.supervised {
            return Ok(());
        }
        let (path, size) = (arguments.store.display(), print::bytes(stored.file_bytes));
        let kept = arguments.setup.as_deref().map_or(Ok(String::new()), kept_setup)?;
        let report = print::report(&report);
        put(&format!("store {} in {path}, {size}, for one run\n{kept}{report}", stored.id))
    })
}
