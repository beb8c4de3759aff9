//! A store serves once, whoever asks and whatever was copied.

use std::fs;
use std::thread;

use marill_runtime::correlation::store::Store;
use marill_runtime::error::{RunError, StoreFault};
use marill_runtime::sharing::Party;

use super::desk::Desk;
use super::files::fault;

#[test]
fn a_copy_of_a_used_store_is_refused() {
    let desk = Desk::of(1);
    let [kept, _] = desk.make("a");
    for party in ["client", "server"] {
        fs::copy(desk.at(&format!("a.{party}")), desk.at(&format!("copy.{party}"))).unwrap();
    }
    desk.run("a");
    assert!(matches!(desk.open("a.client", Party::Client), Err(RunError::File { action: "read", .. })));
    for party in [Party::Client, Party::Server] {
        let role = party.role();
        let register = desk.at(&format!("{role}.key.used"));
        let error = desk.open(&format!("copy.{role}"), party).map(drop).unwrap_err();
        let text = format!(
            "could not use {}: store {} was used before, says {}",
            desk.at(&format!("copy.{role}")).display(),
            kept.id,
            register.display()
        );
        assert_eq!(error.to_string(), text);
        assert_eq!(fs::read_to_string(register).unwrap().len(), 65);
    }
}

#[test]
fn of_many_who_race_for_copies_one_wins() {
    let desk = Desk::of(1);
    desk.make("a");
    let names: Vec<String> = (0..8).map(|i| format!("{i}.client")).collect();
    for name in &names {
        fs::copy(desk.at("a.client"), desk.at(name)).unwrap();
    }
    let stores: Vec<Store> = names.iter().map(|name| desk.open(name, Party::Client).unwrap()).collect();
    let results: Vec<Result<(), RunError>> = thread::scope(|scope| {
        let all: Vec<_> = stores.into_iter().map(|store| scope.spawn(|| store.consume().map(drop))).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    for result in results.into_iter().filter(Result::is_err) {
        assert!(matches!(fault(result), StoreFault::Used { .. }));
    }
}

#[test]
fn one_file_is_open_once() {
    let desk = Desk::of(1);
    desk.make("a");
    let first = desk.open("a.client", Party::Client).unwrap();
    assert_eq!(fault(desk.open("a.client", Party::Client)), StoreFault::Busy);
    // Whoever gives it back unused leaves it to others.
    drop(first);
    let second = desk.open("a.client", Party::Client).unwrap();
    assert!(second.consume().is_ok() && !desk.at("a.client").exists());
}

#[test]
fn a_peer_that_dies_before_it_greets_leaves_the_store_unused() {
    let desk = Desk::of(1);
    desk.make("a");
    let store = desk.store("a.client", Party::Client);
    let (client, server) = marill_runtime::transport::memory_pair();
    drop(server);
    let error = desk.admit(Party::Client).run(client, store, &mut |_| {}).map(drop);
    assert!(matches!(error, Err(RunError::Transport { .. })));
    desk.run("a");
}

#[test]
fn a_store_that_was_used_elsewhere_meanwhile_sends_nothing() {
    let desk = Desk::of(1);
    desk.make("a");
    fs::copy(desk.at("a.client"), desk.at("copy.client")).unwrap();
    let copy = desk.open("copy.client", Party::Client).unwrap();
    let (client, server) = (desk.store("a.client", Party::Client), desk.store("a.server", Party::Server));
    copy.consume().map(drop).unwrap();
    let [client, server] = desk.meet(client, server);
    assert!(matches!(fault(client), StoreFault::Used { .. }));
    assert!(matches!(server.map(drop), Err(RunError::Transport { .. })));
}

#[test]
fn the_register_must_be_there_and_whole() {
    let desk = Desk::of(1);
    desk.make("a");
    let register = desk.at("client.key.used");
    fs::write(&register, "no names\n".repeat(20)).unwrap();
    let error = desk.open("a.client", Party::Client);
    assert!(matches!(fault(error), StoreFault::Malformed { what: "list of used stores", .. }));
    fs::remove_file(&register).unwrap();
    let error = desk.open("a.client", Party::Client).map(drop).unwrap_err();
    assert!(matches!(&error, RunError::File { path, action: "read", .. } if *path == register), "{error}");
    // A line that a crash cut short is no use of any store.
    fs::write(&register, "0123456789").unwrap();
    let store = desk.open("a.client", Party::Client).unwrap();
    let id = *store.id();
    store.consume().map(drop).unwrap();
    let text = fs::read_to_string(&register).unwrap();
    assert_eq!((text.len(), text.lines().count()), (65, 1));
    assert!(matches!(
        fault(desk.key(Party::Client).register().add(&id, &desk.at("a.client"))),
        StoreFault::Used { .. }
    ));
}
