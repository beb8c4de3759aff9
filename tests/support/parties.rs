//! Client, server and, in its suite, dealer as threads over memory channels.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::Duration;

use marill_plaintext::Tensor;
use marill_program::flow::Consent;
use marill_runtime::bundle::Bundle;
use marill_runtime::error::Role;
use marill_runtime::session::{Stats, run_client, run_dealer, run_server, trace};
use marill_runtime::sharing::Party;
use marill_runtime::transport::memory_pair_between;

/// What a run yields: the client's outputs, and the statistics of client, server and dealer.
pub struct Run {
    pub outputs: BTreeMap<String, Tensor>,
    pub stats: [Stats; 3],
}

/// The bundle of a party that agrees to whatever its program declares.
fn open(directory: &Path, party: Party) -> Bundle {
    let bundle = Bundle::open(&directory.join(party.role().to_string()), party).unwrap();
    let flow = trace(bundle.program()).unwrap();
    let consent = match party {
        Party::Client => Consent::needed_by_client(bundle.program(), &flow),
        Party::Server => Consent::needed_by_server(bundle.program(), &flow),
    };
    bundle.allowing(consent)
}

/// One run of a bundle directory between three threads.
pub fn run(
    directory: &Path,
    inputs: &BTreeMap<String, Tensor>,
    server_inputs: &BTreeMap<String, Tensor>,
) -> Run {
    let idle = Duration::from_secs(120);
    let (client_server, server_client) = memory_pair_between(Role::Client, Role::Server, idle);
    let (client_dealer, dealer_client) = memory_pair_between(Role::Client, Role::Dealer, idle);
    let (server_dealer, dealer_server) = memory_pair_between(Role::Server, Role::Dealer, idle);
    thread::scope(|scope| {
        let client = scope.spawn(|| {
            let bundle = open(directory, Party::Client);
            run_client(&bundle, inputs.clone(), client_server, Some(client_dealer), &mut |_| {}).unwrap()
        });
        let server = scope.spawn(|| {
            let bundle = open(directory, Party::Server);
            run_server(&bundle, server_inputs.clone(), server_client, Some(server_dealer), &mut |_| {})
                .unwrap()
        });
        let dealer = scope.spawn(|| {
            let public = open(directory, Party::Client);
            run_dealer(Some(&public), dealer_client, dealer_server, &mut |_| {}).unwrap()
        });
        let (outputs, client) = client.join().unwrap();
        let (_, server) = server.join().unwrap();
        Run { outputs, stats: [client, server, dealer.join().unwrap()] }
    })
}

/// The client's outputs of a run of the two parties alone.
pub fn run_alone(
    directory: &Path,
    inputs: &BTreeMap<String, Tensor>,
    server_inputs: &BTreeMap<String, Tensor>,
) -> BTreeMap<String, Tensor> {
    let idle = Duration::from_secs(120);
    let (client_server, server_client) = memory_pair_between(Role::Client, Role::Server, idle);
    thread::scope(|scope| {
        let server = scope.spawn(|| {
            let bundle = open(directory, Party::Server);
            run_server(&bundle, server_inputs.clone(), server_client, None, &mut |_| {}).unwrap();
        });
        let bundle = open(directory, Party::Client);
        let (outputs, _) = run_client(&bundle, inputs.clone(), client_server, None, &mut |_| {}).unwrap();
        server.join().unwrap();
        outputs
    })
}
