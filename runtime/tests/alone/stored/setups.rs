//! Setup that is kept serves any number of runs, and what does not fit is told or made again.

use std::fs;

use marill_plaintext::Tensor;
use marill_program::{Owner, Target};
use marill_runtime::correlation::store::{HEADER_BYTES, SetupFile, TAG_BYTES};
use marill_runtime::error::{Role, RunError, StoreFault};
use marill_runtime::session::{Order, Origin, Outcome};
use marill_runtime::sharing::Party;
use marill_runtime::transport::Phase;

use super::desk::Desk;
use super::files::{differs, fault};
use super::incompatible;
use crate::build::Builder;
use crate::run::{Data, Random, close, numbers};

/// A product with a matrix that setup encrypts.
fn desk() -> Desk {
    let mut b = Builder::new();
    let x = b.input("x", Owner::Client, "f32[64,128]");
    let w = b.constant("w", Owner::Server, "f32[128,1024]");
    let w = b.weight(w, 40, 10);
    let shared = b.shared(x, 40, 10);
    let opened = b.open(shared, Target::Server, 40);
    let product = b.matmul(opened, w, 40);
    let product = b.truncate(product, 10);
    b.show("product", product);
    let mut random = Random(3);
    let x = Tensor::f32([64, 128], random.reals(64 * 128, -4.0, 4.0, 10)).unwrap();
    let w = Tensor::f32([128, 1024], random.reals(1 << 17, -1.0, 1.0, 10)).unwrap();
    Desk::running(&b.finish(), Data::default().client("x", x).private("w", w))
}

fn open(desk: &Desk, name: &str, party: Party) -> Result<SetupFile, RunError> {
    SetupFile::open(&desk.at(name), desk.key(party), party, desk.bundle(party).program())
}

/// A run of which both parties keep setup, in `s.client` and `s.server`.
fn run(desk: &Desk) -> [Result<Outcome, RunError>; 2] {
    let [client, server] = [Party::Client, Party::Server].map(|party| {
        let name = format!("s.{}", party.role());
        Origin::Peer { keep: Some(Box::new(open(desk, &name, party).unwrap())), order: Order::Streamed }
    });
    desk.meet(client, server)
}

/// What setup and preprocessing sent, each party's, and the rounds of setup.
fn sent(outcomes: &[Outcome; 2]) -> [[u64; 3]; 2] {
    [(&outcomes[0].1, Role::Server), (&outcomes[1].1, Role::Client)].map(|(stats, peer)| {
        let [setup, preprocess] =
            [Phase::Setup, Phase::Preprocess].map(|phase| stats.phase(phase).links[0].counts.bytes_sent);
        [setup, preprocess, stats.rounds(Phase::Setup, peer)]
    })
}

fn whole(outcomes: [Result<Outcome, RunError>; 2]) -> [Outcome; 2] {
    outcomes.map(Result::unwrap)
}

fn files(desk: &Desk) -> [Vec<u8>; 2] {
    ["s.client", "s.server"].map(|name| fs::read(desk.at(name)).unwrap())
}

/// A greeting and half of a name, each in a frame.
const AGAIN: u64 = 64 + 4 + 16 + 4;

#[test]
fn a_setup_serves_many_runs() {
    let desk = desk();
    let direct = whole(desk.meet(Origin::from(None), Origin::from(None)));
    let first = whole(run(&desk));
    let made = files(&desk);
    assert!(made[0].len() > 1 << 20, "{} bytes without weights", made[0].len());
    for (first, direct) in sent(&first).iter().zip(&sent(&direct)) {
        assert_eq!(*first, [direct[0] + 20, direct[1], direct[2] + 1]);
    }
    for _ in 0..2 {
        let again = whole(run(&desk));
        for (again, direct) in sent(&again).iter().zip(&sent(&direct)) {
            assert_eq!(*again, [AGAIN, direct[1], 2]);
        }
        for (outcome, expected) in [&first, &again].into_iter().flat_map(|all| all.iter().zip(&direct)) {
            for name in expected.0.keys() {
                close(&numbers(&outcome.0, name), &numbers(&expected.0, name), 3.0 / 1024.0);
            }
        }
        assert_eq!(files(&desk), made, "a setup is only read");
    }
    // Preparations use it as well.
    let [kept, _] =
        desk.make_with("a", |party| Some(open(&desk, &format!("s.{}", party.role()), party).unwrap()));
    assert_eq!(kept.stats.phase(Phase::Setup).links[0].counts.bytes_sent, AGAIN);
    desk.run("a");
}

#[test]
fn a_setup_that_one_party_lacks_is_made_again() {
    let desk = Desk::of(64);
    let first = sent(&whole(run(&desk)));
    let old = files(&desk);
    fs::remove_file(desk.at("s.client")).unwrap();
    assert_eq!(sent(&whole(run(&desk))), first);
    assert!(files(&desk)[1] != old[1], "the server's is replaced");
    // As after a crash of the client before it had written its own.
    fs::write(desk.at("s.client"), &old[0]).unwrap();
    assert_eq!(sent(&whole(run(&desk))), first);
    assert_eq!(sent(&whole(run(&desk)))[0][0], AGAIN);
}

#[test]
fn both_keep_or_none() {
    let desk = Desk::of(64);
    whole(run(&desk));
    let made = files(&desk);
    let keeps = Origin::Peer {
        keep: Some(Box::new(open(&desk, "s.client", Party::Client).unwrap())),
        order: Order::Streamed,
    };
    let [client, server] = desk.meet(keeps, Origin::from(None));
    let words = ("setup", "kept".to_owned(), "made for one run".to_owned());
    assert_eq!(incompatible(client), words);
    assert_eq!(incompatible(server), (words.0, words.2, words.1));
    assert_eq!(files(&desk), made);
}

#[test]
fn setups_of_others_are_refused() {
    let (desk, other) = (desk(), Desk::of(65));
    whole(run(&desk));
    desk.make("a");
    let refused = |name: &str, key: Party, party: Party, desk: &Desk| {
        let path = desk.at(name);
        let file = SetupFile::open(&path, desk.key(key), party, desk.bundle(party).program());
        differs(&fault(file.map(drop)))
    };
    assert_eq!(refused("s.client", Party::Server, Party::Client, &desk), "key");
    assert_eq!(refused("s.client", Party::Client, Party::Server, &desk), "party");
    assert_eq!(refused("a.client", Party::Client, Party::Client, &desk), "first bytes");
    assert_eq!(differs(&fault(desk.open("s.client", Party::Client).map(drop))), "first bytes");
    for name in ["s.client", "client.key"] {
        fs::copy(desk.at(name), other.at(name)).unwrap();
    }
    assert_eq!(refused("s.client", Party::Client, Party::Client, &other), "program digest");

    // The same program for new weights: before anybody is greeted.
    let mut data = desk.data.clone();
    data.private.insert("w".to_owned(), Tensor::f32([128, 1024], vec![0.5; 1 << 17]).unwrap());
    let fresh = desk.with(data);
    let [client, server] = run(&fresh);
    assert_eq!(differs(&fault(server)), "digest of the weights");
    assert!(matches!(client.map(drop), Err(RunError::Transport { .. })));
    fs::remove_file(fresh.at("s.server")).unwrap();
    whole(run(&fresh));
    whole(run(&fresh));
}

#[test]
fn damage_is_told_where_it_is_read() {
    let desk = desk();
    whole(run(&desk));
    let [client, _] = files(&desk);
    let damaged = |bytes: &[u8]| fs::write(desk.at("s.client"), bytes).unwrap();
    damaged(&client[..client.len() - 1]);
    assert!(matches!(fault(open(&desk, "s.client", Party::Client).map(drop)), StoreFault::Length { .. }));
    let chunk = (1 << 16) + TAG_BYTES as usize;
    let chunks = ((client.len() - HEADER_BYTES as usize).div_ceil(chunk)) as u64;
    let mut bytes = client.clone();
    bytes[100] ^= 1;
    damaged(&bytes);
    let found = fault(open(&desk, "s.client", Party::Client).map(drop));
    assert_eq!(found, StoreFault::Corrupted { chunk: 1, chunks });
    let mut bytes = client.clone();
    *bytes.last_mut().unwrap() ^= 1;
    damaged(&bytes);
    let [failed, _] = run(&desk);
    assert_eq!(fault(failed), StoreFault::Corrupted { chunk: chunks, chunks });
    damaged(&client);
    whole(run(&desk));
    let path = desk.at("nowhere/s");
    let error = SetupFile::open(&path, desk.key(Party::Client), Party::Client, desk.bundles.0.program());
    assert!(matches!(error.map(drop), Err(RunError::File { action: "create", .. })));
    assert!(desk.files().iter().all(|name| !name.starts_with(".marill")));
}
