//! Cost goldens: exact bytes and rounds of compiled programs, free of noise.

use std::fmt::Write;

use crate::support::fixtures::{Fixture, MODELS, shared};
use crate::support::gpt2::Gpt2;
use marill_compiler::{Compiled, Request, compile};
use marill_program::cost::{Bytes, Cost, cost};
use marill_program::two_party::count::whole_demand;
use marill_program::work::work;
use marill_program::{Network, Suite};

/// The cost without what depends on the program file's length, which counts once towards the dealer's setup.
fn priced(compiled: &Compiled) -> Cost {
    cost(&compiled.program, 0, Suite::Dealer)
}

fn row(name: &str, cost: &Cost) -> String {
    let both = |b: &Bytes| b.client_to_server + b.server_to_client;
    format!(
        "{name}: online {} bytes in {} rounds ({} of them client to server), preprocessing {} bytes to the server, setup {} bytes to the client",
        both(&cost.online.bytes),
        cost.online.rounds,
        cost.online.bytes.client_to_server,
        cost.preprocess.bytes.dealer_to_server,
        cost.setup.bytes.server_to_client,
    )
}

/// Bytes and rounds of two parties alone, phase by phase, and the oblivious transfers.
fn two_party_row(compiled: &Compiled) -> String {
    let Cost { setup, preprocess, online, .. } = cost(&compiled.program, 0, Suite::TwoParty);
    let [setup, preprocess, online] = [("setup", setup), ("preprocessing", preprocess), ("online", online)]
        .map(|(name, cost)| {
            let Bytes { client_to_server, server_to_client, .. } = cost.bytes;
            format!("{name} {client_to_server} bytes up, {server_to_client} down in {} rounds", cost.rounds)
        });
    let demand = whole_demand(&compiled.program);
    let transfers = demand.server_chooses + demand.client_chooses;
    format!("{setup}\n{preprocess}, {transfers} transfers\n{online}")
}

/// One block of GPT-2 small at 128 tokens, everything private, with the share of every operation.
#[test]
fn gpt2_small_block() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("block.onnx");
    Gpt2::block(128).write(&path).unwrap();
    let compiled = compile(&path, &Request { suite: Suite::Dealer, ..Request::default() }).unwrap();
    let cost = priced(&compiled);
    let both = cost.online.bytes.client_to_server + cost.online.bytes.server_to_client;
    assert!(both <= 22_000_000 && cost.online.rounds <= 50, "{both} bytes, {} rounds", cost.online.rounds);
    assert!(cost.preprocess.bytes.dealer_to_server <= 130_000_000);
    let mut table = row("gpt2-small block, 128 tokens", &cost);
    let work = work(&compiled.program);
    write!(table, "\nproducts online: {:?}, preprocessing: {:?}", work.online, work.preprocess).unwrap();
    let program = compiled.program.program();
    for (index, group) in program.groups.iter().enumerate() {
        let steps = program.instructions.iter().zip(&cost.instructions);
        let mine: Vec<_> = steps.filter(|(s, _)| s.group as usize == index).map(|(_, c)| c).collect();
        let sum =
            |f: fn(&marill_program::cost::InstructionCost) -> u64| mine.iter().map(|c| f(c)).sum::<u64>();
        let (online, preprocess) = (sum(|c| c.online.total()), sum(|c| c.preprocess.total()));
        if online + preprocess > 0 {
            let operation = group.split(' ').next().unwrap_or_default();
            write!(table, "\n  {operation}: online {online}, preprocessing {preprocess}").unwrap();
        }
    }
    insta::assert_snapshot!(table);
}

/// The same block for two parties alone, on fast and slow networks: the slower, the fewer bytes.
#[test]
fn gpt2_small_block_without_a_dealer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("block.onnx");
    Gpt2::block(128).write(&path).unwrap();
    let mut table = String::new();
    let mut least = u64::MAX;
    for name in ["lan", "wan", "10Mbit,40ms"] {
        let request = Request { network: name.parse().unwrap(), ..Request::default() };
        let compiled = compile(&path, &request).unwrap();
        let Cost { preprocess, online, .. } = cost(&compiled.program, 0, Suite::TwoParty);
        assert!(online.bytes.total() <= 52_000_000 && online.rounds <= 100, "{name}");
        let bytes = preprocess.bytes.total() + online.bytes.total();
        assert!(bytes < least, "{name}: {bytes}");
        least = bytes;
        writeln!(table, "{name}\n{}", two_party_row(&compiled)).unwrap();
    }
    assert!(least <= 170_000_000, "{least}");
    insta::assert_snapshot!(table);
}

/// One more token behind 128 cached ones, the network being slow or not; on a slow one in at most 40 rounds.
#[test]
fn gpt2_small_step() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("step.onnx");
    Gpt2::step(128).write(&path).unwrap();
    let mut table = String::new();
    for (name, network) in [("LAN", Network::LAN), ("WAN", Network::WAN)] {
        let with = |suite| compile(&path, &Request { suite, network, ..Request::default() }).unwrap();
        let [dealt, alone] = [Suite::Dealer, Suite::TwoParty].map(with);
        let rounds =
            [priced(&dealt), cost(&alone.program, 0, Suite::TwoParty)].map(|cost| cost.online.rounds);
        assert!(network != Network::WAN || rounds.iter().all(|&rounds| rounds <= 40), "{rounds:?}");
        writeln!(table, "{}\n{}", row(name, &priced(&dealt)), two_party_row(&alone)).unwrap();
    }
    insta::assert_snapshot!(table);
}

/// A line of every fixture, compiled for `suite`.
fn of_fixtures(suite: Suite, line: impl Fn(&str, &Compiled) -> String) -> Option<String> {
    let shared = shared()?;
    let of = |name: &&str| {
        let fixture = Fixture::load(&shared, name);
        let request = Request { dims: fixture.dims(), suite, ..Request::default() };
        line(name, &compile(&fixture.model, &request).unwrap()) + "\n"
    };
    Some(MODELS.iter().map(of).collect())
}

/// Every fixture's totals for two parties alone.
#[test]
fn fixtures_without_a_dealer() {
    let line = |name: &str, compiled: &Compiled| format!("{name}\n{}", two_party_row(compiled));
    let Some(table) = of_fixtures(Suite::TwoParty, line) else { return };
    insta::assert_snapshot!(table);
}

/// Every fixture's totals.
#[test]
fn fixtures() {
    let line = |name: &str, compiled: &Compiled| row(name, &priced(compiled));
    let Some(table) = of_fixtures(Suite::Dealer, line) else { return };
    insta::assert_snapshot!(table);
}
