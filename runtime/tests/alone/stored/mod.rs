//! What is kept: preprocessing ahead of the inputs gives the results of a direct run, once; setup serves many runs.

mod desk;
mod files;
mod once;
mod setups;

use marill_runtime::error::{Role, RunError};
use marill_runtime::session::{Order, Origin};
use marill_runtime::sharing::Party;
use marill_runtime::transport::Phase;

use crate::run::{close, numbers, run_alone};
use desk::Desk;

#[test]
fn a_run_from_stores_is_a_direct_run_without_its_preprocessing() {
    let desk = Desk::new();
    let [client, server] = run_alone(&desk.bundles, &desk.data);
    let direct = [client.unwrap(), server.unwrap()];
    let [kept_client, kept_server] = desk.make("a");
    assert_eq!(kept_client.id, kept_server.id);
    for (kept, name) in [(&kept_client, "a.client"), (&kept_server, "a.server")] {
        assert_eq!(kept.file_bytes, std::fs::metadata(desk.at(name)).unwrap().len());
        assert!(kept.file_bytes > 3 << 20, "{} bytes are too few chunks", kept.file_bytes);
    }
    let stored = desk.run("a");
    for ((outputs, stats), (expected, whole)) in stored.iter().zip(&direct) {
        assert_eq!(outputs.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for name in outputs.keys() {
            close(&numbers(outputs, name), &numbers(expected, name), 3.0 / 1024.0);
        }
        let peer = if stats.role == Role::Client { Role::Server } else { Role::Client };
        assert_eq!(stats.sent(Phase::Online), whole.sent(Phase::Online));
        assert_eq!(stats.rounds(Phase::Online, peer), whole.rounds(Phase::Online, peer));
        assert_eq!(stats.rounds(Phase::Setup, peer), 1, "the greeting");
        assert_eq!(stats.phase(Phase::Preprocess).links[0].counts.bytes_sent, 0);
    }
    for (kept, (_, whole)) in [&kept_client, &kept_server].into_iter().zip(&direct) {
        assert_eq!(kept.stats.sent(Phase::Setup), whole.sent(Phase::Setup));
        let [made, direct] =
            [&kept.stats, whole].map(|s| s.phase(Phase::Preprocess).links[0].counts.bytes_sent);
        // Half of a name in a frame.
        assert_eq!(made, direct + 16 + 4);
        assert_eq!(kept.stats.phase(Phase::Online).links[0].counts.bytes_sent, 0);
    }
}

/// The `what` of a peer that does not fit, and what is said of both.
fn incompatible<T>(result: Result<T, RunError>) -> (&'static str, String, String) {
    match result.map(|_| ()).unwrap_err() {
        RunError::PeerIncompatible { what, ours, theirs, .. } => (what, ours, theirs),
        other => panic!("{other}"),
    }
}

#[test]
fn rounds_beside_preprocessing_are_the_rounds_behind_it() {
    let desk = Desk::new();
    let origin = |order| Origin::Peer { keep: None, order };
    let [streamed, in_turn] = [Order::Streamed, Order::InTurn]
        .map(|order| desk.meet(origin(order), origin(order)).map(Result::unwrap));
    for ((outputs, stats), (expected, whole)) in streamed.iter().zip(&in_turn) {
        for name in expected.keys() {
            close(&numbers(outputs, name), &numbers(expected, name), 3.0 / 1024.0);
        }
        for phase in [Phase::Setup, Phase::Preprocess, Phase::Online] {
            assert_eq!(stats.phase(phase).links, whole.phase(phase).links, "{phase}");
        }
    }
    let [client, server] = desk.meet(origin(Order::Streamed), origin(Order::InTurn));
    assert_eq!(incompatible(client).0, "purpose");
    assert_eq!(incompatible(server).1, "a whole run with its phases in turn");
}

#[test]
fn peers_that_do_not_fit_part_and_keep_their_stores() {
    let desk = Desk::new();
    let [kept, _] = desk.make("a");
    let [other, _] = desk.make("b");
    assert_ne!(kept.id, other.id);
    let [client, server] =
        desk.meet(desk.store("a.client", Party::Client), desk.store("b.server", Party::Server));
    let (what, ours, theirs) = incompatible(client);
    assert_eq!((what, ours, theirs), ("store", kept.id.to_string(), other.id.to_string()));
    assert_eq!(incompatible(server).0, "store");

    let [client, server] = desk.meet(desk.store("a.client", Party::Client), Origin::from(None));
    let words = ("purpose", "a run from a store".to_owned(), "a whole run".to_owned());
    assert_eq!(incompatible(client), words);
    assert_eq!(incompatible(server), (words.0, words.2, words.1));

    for name in ["a", "b"] {
        desk.run(name);
        assert!(!desk.at(&format!("{name}.client")).exists() && !desk.at(&format!("{name}.server")).exists());
    }
}

#[test]
fn one_that_prepares_and_one_that_runs_part() {
    let desk = Desk::new();
    let [client, server] = desk.prepare_with_a_runner("a");
    let words = ("purpose", "preparation of a run".to_owned(), "a whole run".to_owned());
    assert_eq!(incompatible(client), words);
    assert_eq!(incompatible(server), (words.0, words.2, words.1));
    assert_eq!(desk.files(), ["client.key", "client.key.used", "server.key", "server.key.used"]);
}
