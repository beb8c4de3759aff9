//! Programs before they run.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;
use marill_program::ValidProgram;
use marill_program::cost::PhaseCost;
use marill_program::flow::Statement;
use marill_runtime::bundle::{Bundle, PRIVATE_FILE, PROGRAM_FILE, read_program};
use marill_runtime::report::{Outline, hex};
use marill_runtime::session::trace;
use marill_runtime::sharing::Party;

use super::{Suite, print, put, put_json};

#[derive(Args)]
pub(super) struct VerifyArguments {
    /// A program file, a party's directory, or the directory with client/ and server/
    path: PathBuf,
    /// Whose directory it is, where it is not named client or server
    #[arg(long, value_name = "PARTY")]
    party: Option<PartyName>,
    /// Print the leakage statement as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct InspectArguments {
    /// A program file or a party's directory
    path: PathBuf,
    /// Who makes the correlations whose cost is shown
    #[arg(long, value_enum, default_value = "two-party")]
    suite: Suite,
    /// Print a summary and the cost as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum PartyName {
    Client,
    Server,
}

pub(super) fn verify(arguments: &VerifyArguments) -> Result<()> {
    let path = &arguments.path;
    let parties = [(PartyName::Client, path.join("client")), (PartyName::Server, path.join("server"))];
    let mut text = String::new();
    let program = if parties.iter().all(|(_, directory)| directory.join(PROGRAM_FILE).exists()) {
        let [client, server] =
            parties.map(|(party, directory)| verify_directory(&directory, Some(party), &mut text));
        let (client, server) = (client?, server?);
        if client.digest() != server.digest() {
            let [ours, theirs] = [client.digest(), server.digest()].map(|digest| hex(&digest[..8]));
            bail!("the parties' programs differ: the client's digest is {ours}, the server's {theirs}");
        }
        client
    } else if path.is_dir() {
        verify_directory(path, arguments.party, &mut text)?
    } else {
        read_program(path)?.0
    };
    let statement = Statement::new(&program, &trace(&program)?);
    if arguments.json {
        return put_json(&statement);
    }
    header(&program, &mut text);
    let _ = write!(text, "{statement}");
    text.push_str("valid\n");
    put(&text)
}

/// Opens a party's directory as the party would, and checks that the client's holds nothing of the server's.
fn verify_directory(directory: &Path, party: Option<PartyName>, text: &mut String) -> Result<ValidProgram> {
    let private = directory.join(PRIVATE_FILE);
    let named = || match directory.canonicalize().ok()?.file_name()?.to_str()? {
        "client" => Some(PartyName::Client),
        "server" => Some(PartyName::Server),
        _ => None,
    };
    let guess = if private.exists() { PartyName::Server } else { PartyName::Client };
    let party = party.or_else(named).unwrap_or(guess);
    if party == PartyName::Client && private.exists() {
        bail!(
            "{} is the client's and holds {PRIVATE_FILE}, which only the server may have",
            directory.display()
        );
    }
    let (name, said) = match party {
        PartyName::Client => (Party::Client, format!("the client's, without {PRIVATE_FILE}")),
        PartyName::Server => (Party::Server, "the server's, with every private constant".to_owned()),
    };
    let bundle = Bundle::open(directory, name)?;
    let _ = writeln!(text, "{}: {said}", directory.display());
    Ok(bundle.program().clone())
}

fn header(program: &ValidProgram, text: &mut String) {
    let _ = writeln!(text, "program {} of {} instructions", program.program().name, program.len());
    let _ = writeln!(text, "digest  {}", hex(&program.digest()));
}

pub(super) fn inspect(arguments: &InspectArguments) -> Result<()> {
    let mut path = arguments.path.clone();
    if path.is_dir() {
        let whole = path.join("client");
        path = if whole.is_dir() { whole } else { path }.join(PROGRAM_FILE);
    }
    let (program, program_bytes) = read_program(&path)?;
    let outline = Outline::new(&program, program_bytes.len() as u64, arguments.suite.into());
    if arguments.json {
        return put_json(&outline);
    }
    let mut text = String::new();
    header(&program, &mut text);
    for (name, size) in &outline.dims {
        let _ = writeln!(text, "dim     {name} = {size}");
    }
    let _ = write!(text, "\n{program}\n");
    costs(&outline, &mut text);
    put(&text)
}

fn costs(outline: &Outline, text: &mut String) {
    let links = [
        "client>server",
        "server>client",
        "client>dealer",
        "server>dealer",
        "dealer>client",
        "dealer>server",
    ];
    let _ = write!(text, "cost with the {} suite\n{:11}", outline.suite.name(), "phase");
    links.iter().for_each(|link| {
        let _ = write!(text, "{link:>15}");
    });
    let _ = writeln!(text, "{:>9}", "rounds");
    let phases = [("setup", outline.setup), ("preprocess", outline.preprocess), ("online", outline.online)];
    for (name, PhaseCost { bytes, rounds }) in phases {
        let _ = write!(text, "{name:11}");
        for count in [
            bytes.client_to_server,
            bytes.server_to_client,
            bytes.client_to_dealer,
            bytes.server_to_dealer,
            bytes.dealer_to_client,
            bytes.dealer_to_server,
        ] {
            let _ = write!(text, "{:>15}", print::bytes(count));
        }
        let _ = writeln!(text, "{rounds:>9}");
    }
}
