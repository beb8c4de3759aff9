//! A directory with both parties' keys and stores.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use marill_plaintext::Tensor;
use marill_program::{Owner, Target, ValidProgram};
use marill_runtime::bundle::Bundle;
use marill_runtime::correlation::store::{NewStore, SetupFile, Store, StoreKey};
use marill_runtime::error::RunError;
use marill_runtime::session::{Admitted, Origin, Outcome, Stored, admit, prepare, run_server};
use marill_runtime::sharing::Party;
use marill_runtime::transport::Channel;

use crate::build::Builder;
use crate::run::{Data, Random, bundles, links};

/// `x w` and `x x` of numbers, cut to 10 fraction bits, and `x p` for a public `p` under the mask: fields of several
/// kinds, of some mebibytes.
fn program(rows: usize) -> (ValidProgram, Data) {
    let mut b = Builder::new();
    let ty = format!("f32[{rows},64]");
    let x = b.input("x", Owner::Client, &ty);
    let w = b.constant("w", Owner::Server, "f32[64,8]");
    let p = b.constant("p", Owner::Public, "f32[64,64]");
    let w = b.weight(w, 40, 10);
    let p = b.encode(p, 40, 10);
    let shared = b.shared(x, 40, 10);
    let opened = b.open(shared, Target::Both, 40);
    let square = b.mul(opened, opened, 40);
    let square = b.truncate(square, 10);
    let under = b.matmul(opened, p, 40);
    let under = b.lift(under, 40);
    let under = b.truncate(under, 10);
    let again = b.open(shared, Target::Server, 40);
    let product = b.matmul(again, w, 40);
    let product = b.truncate(product, 10);
    b.show("square", square);
    b.show("product", product);
    b.reveal("under", under, Target::Server, false);
    let mut random = Random(7);
    let data = Data::default()
        .client("x", Tensor::f32([rows, 64], random.reals(rows * 64, -4.0, 4.0, 10)).unwrap())
        .private("w", Tensor::f32([64, 8], random.reals(512, -1.0, 1.0, 10)).unwrap())
        .public("p", Tensor::f32([64, 64], random.reals(4096, -1.0, 1.0, 10)).unwrap());
    (b.finish(), data)
}

pub struct Desk {
    directory: tempfile::TempDir,
    pub bundles: (Bundle, Bundle),
    pub data: Data,
}

impl Desk {
    /// Both parties of a program whose stores have several chunks.
    pub fn new() -> Desk {
        Desk::of(4096)
    }

    /// Both parties of a program with so many rows.
    pub fn of(rows: usize) -> Desk {
        let (program, data) = program(rows);
        Desk::running(&program, data)
    }

    /// Both parties of a program.
    pub fn running(program: &ValidProgram, data: Data) -> Desk {
        let bundles = bundles(program, program, &data);
        let desk = Desk { directory: tempfile::tempdir().unwrap(), bundles, data };
        for party in ["client", "server"] {
            StoreKey::create(&desk.at(&format!("{party}.key"))).unwrap();
        }
        desk
    }

    /// The same place and program with other data.
    pub fn with(self, data: Data) -> Desk {
        let program = self.bundles.0.program();
        Desk { bundles: bundles(program, program, &data), data, ..self }
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub fn key(&self, party: Party) -> StoreKey {
        StoreKey::load(&self.at(&format!("{}.key", party.role()))).unwrap()
    }

    pub fn bundle(&self, party: Party) -> &Bundle {
        match party {
            Party::Client => &self.bundles.0,
            Party::Server => &self.bundles.1,
        }
    }

    pub fn open(&self, name: &str, party: Party) -> Result<Store, RunError> {
        Store::open(&self.at(name), &self.key(party), party, self.bundle(party).program())
    }

    /// The store `name` as an origin.
    pub fn store(&self, name: &str, party: Party) -> Origin {
        Origin::Store(Box::new(self.open(name, party).unwrap()))
    }

    fn prepare_one(
        &self,
        name: &str,
        party: Party,
        peer: Channel,
        setup: Option<SetupFile>,
    ) -> Result<Stored, RunError> {
        let place = NewStore::reserve(&self.at(&format!("{name}.{}", party.role())), self.key(party))?;
        prepare(self.bundle(party), party, peer, place, setup, &mut |_| {})
    }

    /// Makes `name.client` and `name.server`.
    pub fn make(&self, name: &str) -> [Stored; 2] {
        self.make_with(name, |_| None)
    }

    /// As [`Desk::make`], with setups that are kept.
    pub fn make_with(&self, name: &str, setup: impl Fn(Party) -> Option<SetupFile> + Sync) -> [Stored; 2] {
        let (client, server) = links(Duration::from_secs(30)).client_server;
        thread::scope(|scope| {
            let client = scope.spawn(|| self.prepare_one(name, Party::Client, client, setup(Party::Client)));
            let server = self.prepare_one(name, Party::Server, server, setup(Party::Server));
            [client.join().unwrap().unwrap(), server.unwrap()]
        })
    }

    /// A client that prepares with a server that runs.
    pub fn prepare_with_a_runner(&self, name: &str) -> [Result<(), RunError>; 2] {
        let (client, server) = links(Duration::from_secs(30)).client_server;
        thread::scope(|scope| {
            let client = scope.spawn(|| self.prepare_one(name, Party::Client, client, None).map(drop));
            let server = run_server(&self.bundles.1, self.data.server.clone(), server, None, &mut |_| {});
            [client.join().unwrap(), server.map(drop)]
        })
    }

    pub fn admit(&self, party: Party) -> Admitted<'_> {
        let inputs = match party {
            Party::Client => &self.data.client,
            Party::Server => &self.data.server,
        };
        admit(self.bundle(party), party, inputs.clone()).unwrap()
    }

    /// A run with correlations from there.
    pub fn meet(&self, client: Origin, server: Origin) -> [Result<Outcome, RunError>; 2] {
        let (to_server, to_client) = links(Duration::from_secs(30)).client_server;
        let (of_client, of_server) = (self.admit(Party::Client), self.admit(Party::Server));
        thread::scope(|scope| {
            let client = scope.spawn(|| of_client.run(to_server, client, &mut |_| {}));
            let server = of_server.run(to_client, server, &mut |_| {});
            [client.join().unwrap(), server]
        })
    }

    /// A run from `name.client` and `name.server`.
    pub fn run(&self, name: &str) -> [Outcome; 2] {
        let [client, server] = [Party::Client, Party::Server]
            .map(|party| self.store(&format!("{name}.{}", party.role()), party));
        let [client, server] = self.meet(client, server);
        [client.unwrap(), server.unwrap()]
    }
}
