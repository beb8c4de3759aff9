//! When rounds begin: as soon as what they take is there, or when all correlations are.

use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use marill_program::{Owner, Target};
use marill_runtime::error::RunError;
use marill_runtime::session::{Order, Origin, admit, run_dealer};
use marill_runtime::sharing::Party;
use marill_runtime::transport::{Channel, Phase};

use crate::build::Builder;
use crate::hostile::the_server_notices_that_corrections_end;
use crate::run::*;
use crate::tapped::{data, program};

fn run_in(order: [Order; 2]) -> Run {
    let (program, data) = (program(), data(3, 0.25));
    let bundles = bundles(&program, &program, &data);
    let Links { client_server, client_dealer, server_dealer } = links(Duration::from_secs(5));
    thread::scope(|scope| {
        let client = scope.spawn(|| {
            let admitted = admit(&bundles.0, Party::Client, data.client.clone())?;
            admitted.run(client_server.0, Origin::Dealer(client_dealer.0, order[0]), &mut |_| {})
        });
        let server = scope.spawn(|| {
            let admitted = admit(&bundles.1, Party::Server, data.server.clone())?;
            admitted.run(client_server.1, Origin::Dealer(server_dealer.0, order[1]), &mut |_| {})
        });
        let dealer =
            scope.spawn(|| run_dealer(Some(&bundles.0), client_dealer.1, server_dealer.1, &mut |_| {}));
        Run { client: client.join().unwrap(), server: server.join().unwrap(), dealer: dealer.join().unwrap() }
    })
}

#[test]
fn rounds_beside_corrections_are_the_rounds_behind_them() {
    let [streamed, in_turn] = [Order::Streamed, Order::InTurn].map(|order| {
        let run = run_in([order; 2]);
        run.dealer.unwrap();
        [run.client.unwrap(), run.server.unwrap()]
    });
    for ((outputs, stats), (expected, whole)) in streamed.iter().zip(&in_turn) {
        assert_eq!(outputs, expected);
        for phase in [Phase::Setup, Phase::Preprocess, Phase::Online] {
            assert_eq!(stats.phase(phase).links, whole.phase(phase).links, "{phase}");
        }
    }
    let run = run_in([Order::Streamed, Order::InTurn]);
    let server = run.server.err().unwrap();
    assert!(matches!(run.client, Err(RunError::PeerIncompatible { what: "purpose", .. })));
    assert!(matches!(server, RunError::PeerIncompatible { what: "purpose", .. }), "{server}");
}

#[test]
fn a_round_waits_for_no_correction_that_it_does_not_take() {
    let mut b = Builder::new();
    let x = b.input("x", Owner::Client, "i64[3]");
    let value = b.masked(x, 5, 0);
    let wide = b.lift(value, 8);
    b.reveal("out", wide, Target::Client, true);
    let (opened, has_opened) = channel();
    let rounds = move |mut lane: Channel| {
        opened.send(lane.exchange(&[0, 0], 2).is_ok()).unwrap();
        let _ = lane.recv(1);
    };
    // The first opening takes no correction.
    let before = move || assert!(has_opened.recv().unwrap());
    the_server_notices_that_corrections_end(&b.finish(), &Data::default(), rounds, before);
}
