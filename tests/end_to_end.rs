//! Real exports, compiled and run by client, server and dealer, against onnxruntime's references.
//!
//! The three run as threads over memory channels here, so that many mask seeds are affordable; `tests/processes.rs`
//! runs the binaries as processes over TCP.

use std::collections::BTreeMap;

use crate::support::fixtures::{Fixture, MODELS, compare, shared};
use crate::support::parties::run;
use marill_compiler::Compiled;
use marill_compiler::precision::headroom;
use marill_plaintext::Tensor;
use marill_program::Suite;
use marill_program::cost::{Cost, cost};
use marill_runtime::error::Role;
use marill_runtime::session::Stats;
use marill_runtime::transport::Phase;

/// Runs that each fixture gets, each with fresh masks from the operating system.
const SEEDS: usize = 20;

/// One fixture that gets more, and how many.
const MANY_SEEDS: (&str, usize) = ("gpt2_dynamo18", 100);

/// How far the carries of a run's truncations may take an output from the simulation.
const CARRIES: f32 = 4e-3;

/// The outputs of the program's exact arithmetic without masks.
fn simulate(compiled: &Compiled, inputs: &BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let sample = std::slice::from_ref(inputs);
    let check = headroom::check(&compiled.graph, &compiled.lowered, &compiled.program, sample).unwrap();
    assert!(headroom::first_overflow(&check).is_none(), "{:?}", headroom::first_overflow(&check));
    check.outputs.into_iter().next().unwrap()
}

/// Bytes and rounds must be exactly what the cost table says, on every link and in every phase.
fn assert_metered(name: &str, stats: &[Stats; 3], cost: &Cost) {
    for (phase, expected) in
        [(Phase::Setup, &cost.setup), (Phase::Preprocess, &cost.preprocess), (Phase::Online, &cost.online)]
    {
        let [client, server, dealer] = stats.each_ref().map(|s| s.sent(phase));
        let mut found = client;
        found.server_to_client = server.server_to_client;
        found.server_to_dealer = server.server_to_dealer;
        found.dealer_to_client = dealer.dealer_to_client;
        found.dealer_to_server = dealer.dealer_to_server;
        assert_eq!(found, expected.bytes, "{name}: {phase}");
    }
    assert_eq!(stats[0].rounds(Phase::Online, Role::Server), cost.online.rounds, "{name}: rounds");
}

#[test]
fn fixtures_agree_with_their_references_for_every_seed() {
    let Some(shared) = shared() else { return };
    for name in MODELS {
        let fixture = Fixture::load(&shared, name);
        let bundle = tempfile::tempdir().unwrap();
        let compiled = fixture.compile(bundle.path());
        let length = std::fs::metadata(bundle.path().join("client/program.marill")).unwrap().len();
        let cost = cost(&compiled.program, length, Suite::Dealer);
        let (mut worst, mut apart) = (0f32, 0f32);
        let simulated = simulate(&compiled, &fixture.inputs);
        let seeds = if *name == MANY_SEEDS.0 { MANY_SEEDS.1 } else { SEEDS };
        for _ in 0..seeds {
            let run = run(bundle.path(), &fixture.inputs, &BTreeMap::new());
            assert_metered(name, &run.stats, &cost);
            for (output, expected) in &fixture.outputs {
                let found = compare(&run.outputs[output], expected, fixture.inputs.get("attention_mask"));
                assert!(found.max_abs_error < 1e-2, "{name}: error {}", found.max_abs_error);
                assert_eq!(found.same_top, found.rows, "{name}: another top-1");
                worst = worst.max(found.max_abs_error);
                let predicted = compare(&run.outputs[output], &simulated[output], None);
                apart = apart.max(predicted.max_abs_error);
            }
        }
        println!("{name}: max error over {seeds} seeds {worst:.2e}, {apart:.2e} from the simulation");
        assert!(apart < CARRIES, "{name}: {apart} from the simulation");
    }
}
