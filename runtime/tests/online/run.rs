//! Threads over memory, each run held against the cost table; [`crate::SUITE`] says whether a dealer takes part.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use marill_plaintext::Tensor;
use marill_program::cost::{Bytes, cost};
use marill_program::flow::Consent;
use marill_program::{Suite, ValidProgram};
use marill_runtime::bundle::Bundle;
use marill_runtime::error::{Role, RunError};
use marill_runtime::session::{Outcome, Stats, run_client, run_dealer, run_server, trace};
use marill_runtime::transport::{Channel, Phase, memory_pair_between};

pub type Tensors = BTreeMap<String, Tensor>;

/// Everything a run is made from.
#[derive(Clone, Default)]
pub struct Data {
    pub client: Tensors,
    pub server: Tensors,
    pub public: Tensors,
    pub private: Tensors,
}

impl Data {
    pub fn client(mut self, name: &str, tensor: Tensor) -> Data {
        self.client.insert(name.to_owned(), tensor);
        self
    }

    pub fn server(mut self, name: &str, tensor: Tensor) -> Data {
        self.server.insert(name.to_owned(), tensor);
        self
    }

    pub fn public(mut self, name: &str, tensor: Tensor) -> Data {
        self.public.insert(name.to_owned(), tensor);
        self
    }

    pub fn private(mut self, name: &str, tensor: Tensor) -> Data {
        self.private.insert(name.to_owned(), tensor);
        self
    }
}

/// What the three roles returned.
pub struct Run {
    pub client: Result<Outcome, RunError>,
    pub server: Result<Outcome, RunError>,
    pub dealer: Result<Stats, RunError>,
}

/// Both ends of each link: client-server, client-dealer, server-dealer.
pub struct Links {
    pub client_server: (Channel, Channel),
    pub client_dealer: (Channel, Channel),
    pub server_dealer: (Channel, Channel),
}

pub fn links(idle: Duration) -> Links {
    Links {
        client_server: memory_pair_between(Role::Client, Role::Server, idle),
        client_dealer: memory_pair_between(Role::Client, Role::Dealer, idle),
        server_dealer: memory_pair_between(Role::Server, Role::Dealer, idle),
    }
}

/// Bundles of parties that agree to whatever their programs declare.
pub fn bundles(client: &ValidProgram, server: &ValidProgram, data: &Data) -> (Bundle, Bundle) {
    let [of_client, of_server] = [client, server].map(|program| trace(program).unwrap());
    (
        Bundle::in_memory(client.clone(), data.public.clone(), None)
            .allowing(Consent::needed_by_client(client, &of_client)),
        Bundle::in_memory(server.clone(), data.public.clone(), Some(data.private.clone()))
            .allowing(Consent::needed_by_server(server, &of_server)),
    )
}

/// Runs over the given links.
pub fn run_over(links: Links, bundles: &(Bundle, Bundle), data: &Data) -> Run {
    let Links { client_server, client_dealer, server_dealer } = links;
    thread::scope(|scope| {
        let client = scope.spawn(|| {
            run_client(&bundles.0, data.client.clone(), client_server.0, Some(client_dealer.0), &mut |_| {})
        });
        let server = scope.spawn(|| {
            run_server(&bundles.1, data.server.clone(), client_server.1, Some(server_dealer.0), &mut |_| {})
        });
        let dealer =
            scope.spawn(|| run_dealer(Some(&bundles.0), client_dealer.1, server_dealer.1, &mut |_| {}));
        Run { client: client.join().unwrap(), server: server.join().unwrap(), dealer: dealer.join().unwrap() }
    })
}

fn sum(all: [Bytes; 3]) -> Bytes {
    all.into_iter().fold(Bytes::default(), |a, b| Bytes {
        client_to_server: a.client_to_server + b.client_to_server,
        server_to_client: a.server_to_client + b.server_to_client,
        client_to_dealer: a.client_to_dealer + b.client_to_dealer,
        server_to_dealer: a.server_to_dealer + b.server_to_dealer,
        dealer_to_client: a.dealer_to_client + b.dealer_to_client,
        dealer_to_server: a.dealer_to_server + b.dealer_to_server,
    })
}

/// Runs the two parties alone.
pub fn run_alone(bundles: &(Bundle, Bundle), data: &Data) -> [Result<Outcome, RunError>; 2] {
    let (client, server) = links(Duration::from_secs(30)).client_server;
    thread::scope(|scope| {
        let client = scope.spawn(|| run_client(&bundles.0, data.client.clone(), client, None, &mut |_| {}));
        let server = run_server(&bundles.1, data.server.clone(), server, None, &mut |_| {});
        [client.join().unwrap(), server]
    })
}

/// The outputs of client and server; bytes and rounds are those of the cost table.
pub fn run(program: &ValidProgram, data: &Data) -> (Tensors, Tensors) {
    let bundles = bundles(program, program, data);
    let table = cost(program, program.encode().len() as u64, crate::SUITE);
    let phases =
        [(Phase::Setup, table.setup), (Phase::Preprocess, table.preprocess), (Phase::Online, table.online)];
    if crate::SUITE == Suite::TwoParty {
        let [client, server] = run_alone(&bundles, data).map(Result::unwrap);
        for (phase, expected) in phases {
            let sent = sum([client.1.sent(phase), server.1.sent(phase), Bytes::default()]);
            assert_eq!(sent, expected.bytes, "{phase}");
            assert_eq!(client.1.rounds(phase, Role::Server), expected.rounds, "{phase}");
            assert_eq!(server.1.rounds(phase, Role::Client), expected.rounds, "{phase}");
        }
        return (client.0, server.0);
    }
    let run = run_over(links(Duration::from_secs(30)), &bundles, data);
    let ((client, client_stats), (server, server_stats)) = (run.client.unwrap(), run.server.unwrap());
    let dealer_stats = run.dealer.unwrap();
    for (phase, expected) in phases {
        let sent = sum([client_stats.sent(phase), server_stats.sent(phase), dealer_stats.sent(phase)]);
        assert_eq!(sent, expected.bytes, "{phase}");
        if phase == Phase::Preprocess {
            assert_eq!(server_stats.rounds(phase, Role::Dealer), expected.rounds);
        } else {
            assert_eq!(client_stats.rounds(phase, Role::Server), expected.rounds, "{phase}");
            assert_eq!(server_stats.rounds(phase, Role::Client), expected.rounds, "{phase}");
        }
    }
    (client, server)
}

/// The output `out` of the client as numbers.
pub fn out(program: &ValidProgram, data: &Data) -> Vec<f64> {
    numbers(&run(program, data).0, "out")
}

pub fn numbers(outputs: &Tensors, name: &str) -> Vec<f64> {
    match &outputs[name] {
        Tensor::I64(a) => a.iter().map(|v| *v as f64).collect(),
        tensor => tensor.to_f32_vec().unwrap().into_iter().map(f64::from).collect(),
    }
}

/// A reproducible stream of numbers.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform among the integers `low ..= high`.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        low + (self.next() % (high - low + 1) as u64) as i64
    }

    /// `count` integers in `low ..= high`, both ends among them.
    pub fn integers(&mut self, count: usize, low: i64, high: i64) -> Vec<i64> {
        let mut all: Vec<i64> = (0..count).map(|_| self.between(low, high)).collect();
        for (i, edge) in [low, high, 0, -1, 1].into_iter().enumerate() {
            if i < count && (low..=high).contains(&edge) {
                all[i] = edge;
            }
        }
        all
    }

    /// `count` multiples of `2^-frac` in `low ..= high`, both ends among them.
    pub fn reals(&mut self, count: usize, low: f64, high: f64, frac: u32) -> Vec<f32> {
        let one = f64::from(1u32 << frac);
        let all = self.integers(count, (low * one) as i64, (high * one) as i64);
        all.into_iter().map(|v| (v as f64 / one) as f32).collect()
    }
}

/// Fails with the first pair further apart than `bound`.
pub fn close(found: &[f64], expected: &[f64], bound: f64) {
    assert_eq!(found.len(), expected.len());
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() <= bound, "element {i}: {f} is not within {bound} of {e}");
    }
}
