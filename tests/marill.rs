//! Models fine-tuned from a published base: what is published leaves the protocol, and answers stay the models'.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::support::fixtures::{Fixture, compare, shared};
use crate::support::gpt2::Gpt2;
use crate::support::parties::{run, run_alone};
use crate::support::trained;
use crate::support::tuning::Tuning;
use marill_compiler::explain::{Place, placements};
use marill_compiler::ir::{self, Owner};
use marill_compiler::published::Status;
use marill_compiler::report::operator_rows;
use marill_compiler::{Compiled, Request, Reveal, Weights, bundle, compile};
use marill_program::Suite;
use marill_program::cost::{Bytes, cost};
use marill_program::{Instruction, Network};

/// Every member of the pairs, by folder.
const MEMBERS: [&str; 10] = [
    "pair_gpt2/a_full",
    "pair_gpt2/b_last2",
    "pair_gpt2/c_lora",
    "pair_gpt2/d_lora_merged",
    "pair_gpt2/e_heads",
    "pair_gpt2/f_all",
    "pair_gpt2/f_all_dynamo18",
    "pair_llama/b_last1",
    "pair_llama/c_lora",
    "pair_llama/d_lora_merged",
];

/// Those that two parties run alone as well: all weights private, adapters apart and merged, and everything applied.
const ALONE: [&str; 4] =
    ["pair_gpt2/a_full", "pair_gpt2/c_lora", "pair_gpt2/f_all", "pair_llama/d_lora_merged"];

fn against(base: PathBuf) -> Request {
    Request {
        weights: Weights { base: Some(base), ..Weights::default() },
        suite: Suite::Dealer,
        ..Request::default()
    }
}

fn base_of(shared: &Path, member: &str) -> PathBuf {
    let family = member.split('/').next().unwrap();
    shared.join(family).join("base/model.onnx")
}

/// What is known of a model's weights, a line each for those that are not simply published.
fn weights(compiled: &Compiled) -> String {
    let mut text = String::new();
    let of = |status: fn(&Status) -> bool| compiled.weights.iter().filter(|row| status(&row.status)).count();
    let published = of(|status| matches!(status, Status::Published { .. }));
    writeln!(text, "{published} of {} published", compiled.weights.len()).unwrap();
    for row in &compiled.weights {
        match &row.status {
            Status::Published { .. } | Status::Declared => {}
            Status::LowRank { in_base, rank } => {
                writeln!(text, "  {}: {in_base} and a product of rank {rank}", row.name).unwrap();
            }
            Status::Private => writeln!(text, "  {}: private, {} elements", row.name, row.elements).unwrap(),
        }
    }
    text
}

fn row(compiled: &Compiled) -> String {
    let cost = cost(&compiled.program, 0, Suite::Dealer);
    let both = |b: &Bytes| b.client_to_server + b.server_to_client;
    format!(
        "online {} bytes in {} rounds, preprocessing {} bytes, setup {} bytes",
        both(&cost.online.bytes),
        cost.online.rounds,
        cost.preprocess.bytes.dealer_to_server,
        cost.setup.bytes.total(),
    )
}

#[test]
fn members_are_compared_with_their_base() {
    let Some(shared) = shared() else { return };
    let mut text = String::new();
    for member in MEMBERS {
        let model = shared.join(member).join("model.onnx");
        let compiled = compile(&model, &against(base_of(&shared, member))).unwrap();
        writeln!(text, "{member}: {}\n{}", row(&compiled), weights(&compiled)).unwrap();
    }
    insta::assert_snapshot!(text);
}

#[test]
fn members_answer_as_their_references() {
    let Some(shared) = shared() else { return };
    for member in MEMBERS {
        let fixture = Fixture::load(&shared, member);
        let suites =
            if ALONE.contains(&member) { &[Suite::Dealer, Suite::TwoParty][..] } else { &[Suite::Dealer] };
        for &suite in suites {
            let request = Request { suite, ..against(base_of(&shared, member)) };
            let compiled = compile(&fixture.model, &request).unwrap();
            let out = tempfile::tempdir().unwrap();
            bundle::write(out.path(), &compiled.graph, &compiled.lowered).unwrap();
            let outputs = match suite {
                Suite::Dealer => run(out.path(), &fixture.inputs, &BTreeMap::new()).outputs,
                Suite::TwoParty => run_alone(out.path(), &fixture.inputs, &BTreeMap::new()),
            };
            let found = compare(&outputs["logits"], &fixture.outputs["logits"], None);
            println!("{member}, {}: {:.1e}", suite.name(), found.max_abs_error);
            assert!(found.max_abs_error < 1e-2, "{member}: {}", found.max_abs_error);
            assert_eq!(found.same_top, found.rows, "{member}");
        }
    }
}

/// Whether a group's name is of one of the first `count` blocks.
fn is_in_first_blocks(group: &str, count: usize) -> bool {
    (0..count).any(|block| group.contains(&format!("/h.{block}/")))
}

#[test]
fn frozen_layers_and_a_public_head_cost_nothing() {
    let Some(shared) = shared() else { return };
    let member = "pair_gpt2/b_last2";
    let base = base_of(&shared, member);
    let compiled = compile(&shared.join(member).join("model.onnx"), &against(base.clone())).unwrap();
    let rows = operator_rows(&compiled.program, Suite::Dealer);
    assert!(!rows.is_empty());
    for row in &rows {
        assert!(!is_in_first_blocks(&row.group, 2), "{} costs something", row.group);
        assert!(!row.group.contains("wte"), "{} costs something", row.group);
    }
    let placed = placements(&compiled.program);
    let frozen: Vec<_> = placed.iter().filter(|op| is_in_first_blocks(&op.group, 2)).collect();
    assert!(frozen.len() > 20 && frozen.iter().all(|op| op.place == Place::Client));
    let head = placed.iter().rfind(|op| op.group.starts_with("mat_mul")).unwrap();
    assert_eq!(head.place, Place::ClientAfterReveal, "{}", head.group);
    // The base model itself: nothing is private, so nobody needs a protocol.
    let compiled = compile(&base, &against(base.clone())).unwrap();
    let cost = cost(&compiled.program, 0, Suite::Dealer);
    assert_eq!((cost.online.rounds, cost.online.bytes.total()), (0, 0));
}

#[test]
fn public_tokens_keep_the_model_at_the_server() {
    let Some(shared) = shared() else { return };
    let fixture = Fixture::load(&shared, "pair_gpt2/a_full");
    let owners = BTreeMap::from([("input_ids".to_owned(), Owner::Public)]);
    let request = Request { owners, suite: Suite::Dealer, ..Request::default() };
    let compiled = compile(&fixture.model, &request).unwrap();
    let clear = placements(&compiled.program).into_iter().filter(|op| op.place == Place::Server).count();
    assert!(clear > 100, "{clear}");
    let opened = |at: usize| matches!(compiled.program.instruction(at), Instruction::Open(_));
    assert!(!(0..compiled.program.len()).any(opened));
    let out = tempfile::tempdir().unwrap();
    bundle::write(out.path(), &compiled.graph, &compiled.lowered).unwrap();
    let outputs = run(out.path(), &fixture.inputs, &fixture.inputs).outputs;
    let found = compare(&outputs["logits"], &fixture.outputs["logits"], None);
    assert!(found.max_abs_error < 1e-3, "{}", found.max_abs_error);
}

/// A public backbone whose states feed a private branch, which never feeds back.
#[test]
fn a_one_way_adapter_leaves_the_backbone_with_the_client() {
    let text = r#"
        %0 = input "x" : f32[8,16]
        %1 = constant "backbone.0" : f32[16,16] #0000000000000001 @public
        %2 = mat_mul(%0, %1) : f32[8,16]
        %3 = gelu{form=erf}(%2) : f32[8,16]
        %4 = constant "backbone.1" : f32[16,16] #0000000000000002 @public
        %5 = mat_mul(%3, %4) : f32[8,16]
        %6 = layer_norm{epsilon=1e-5}(%5) : f32[8,16]
        %7 = constant "side.0" : f32[16,4] #0000000000000003
        %8 = mat_mul(%3, %7) : f32[8,4]
        %9 = constant "side.1" : f32[16,4] #0000000000000004
        %10 = mat_mul(%6, %9) : f32[8,4]
        %11 = add(%8, %10) : f32[8,4]
        output "y" = %11 reveal=client
    "#;
    let mut graph = ir::parse(text).unwrap();
    marill_compiler::ownership::assign(&mut graph, &BTreeMap::new()).unwrap();
    let owners: Vec<_> = graph
        .topological()
        .into_iter()
        .filter_map(|id| Some((graph.op(id)?.name(), graph.node(id).facts.owner?)))
        .collect();
    use Owner::{Client, Shared};
    let expected = [
        ("mat_mul", Client),
        ("gelu", Client),
        ("mat_mul", Shared),
        ("mat_mul", Client),
        ("layer_norm", Client),
        ("mat_mul", Shared),
        ("add", Shared),
    ];
    assert_eq!(owners, expected);
}

#[test]
fn only_the_index_is_revealed_when_asked_for() {
    let Some(shared) = shared() else { return };
    let fixture = Fixture::load(&shared, "pair_gpt2/f_all");
    let reveals = BTreeMap::from([("logits".to_owned(), Reveal { to: Owner::Client, argmax: true })]);
    let request = Request { reveals, ..against(base_of(&shared, "pair_gpt2/f_all")) };
    let compiled = compile(&fixture.model, &request).unwrap();
    let out = tempfile::tempdir().unwrap();
    bundle::write(out.path(), &compiled.graph, &compiled.lowered).unwrap();
    let outputs = run(out.path(), &fixture.inputs, &BTreeMap::new()).outputs;
    assert_eq!(outputs.keys().collect::<Vec<_>>(), ["logits.argmax"]);
    let found = outputs["logits.argmax"].to_i64_vec().unwrap();
    let logits = fixture.outputs["logits"].to_f32_vec().unwrap();
    for (row, index) in logits.chunks(logits.len() / found.len()).zip(found) {
        let largest = row.iter().copied().fold(f32::MIN, f32::max);
        assert!(largest - row[index as usize] < 1e-2, "{index}");
    }
}

#[test]
fn patterns_say_whose_weights_are() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/small_lm/model.onnx");
    let with = |private: &[&str], public: &[&str]| {
        let owned = |patterns: &[&str]| patterns.iter().map(|p| (*p).to_owned()).collect();
        let weights = Weights { private: owned(private), public: owned(public), ..Weights::default() };
        compile(&model, &Request { weights, suite: Suite::Dealer, ..Request::default() })
    };
    let private = |compiled: &Compiled| -> Vec<String> {
        let rows = compiled.weights.iter().filter(|row| row.status == Status::Private);
        rows.map(|row| row.name.clone()).collect()
    };
    let all = with(&[], &[]).unwrap();
    let last = with(&["*h.3.*"], &[]).unwrap();
    assert!(private(&last).len() < private(&all).len());
    // What has no name of its own is not published by a pattern for others.
    assert!(
        private(&last)
            .iter()
            .all(|name| name.contains("h.3.") || name.starts_with("onnx::") || name.starts_with('/'))
    );
    let first = with(&[], &["*h.0.*"]).unwrap();
    assert!(private(&first).iter().all(|name| !name.contains("h.0.")));
    assert!(private(&first).iter().any(|name| name.contains("h.1.")));
    assert_eq!(with(&["nothing*"], &[]).unwrap_err().code(), "no-such-weight");
    assert_eq!(with(&["*h.0.*"], &["*h.0.*"]).unwrap_err().code(), "both-owners");
}

/// The same bytes every time.
#[test]
fn compiling_against_a_base_is_deterministic() {
    let Some(shared) = shared() else { return };
    let member = "pair_gpt2/d_lora_merged";
    let model = shared.join(member).join("model.onnx");
    for network in [Network::LAN, Network::WAN] {
        let request = Request { network, ..against(base_of(&shared, member)) };
        let digests = [(); 2].map(|()| compile(&model, &request).unwrap().program.digest());
        assert_eq!(digests[0], digests[1]);
    }
}

/// Windows of held-out text that are tried here; `examples/held_out.rs` tries them all.
const WINDOWS: usize = 6;

/// Trained models predict the next token of held-out text as well in ring arithmetic as in the clear.
#[test]
fn trained_models_keep_their_accuracy() {
    let Some(shared) = shared() else { return };
    let folder = shared.join("trained");
    let windows = trained::held_out(&folder, WINDOWS).unwrap();
    for (name, base) in trained::TRAINED {
        let compiled = trained::compile_trained(&folder, name, base).unwrap();
        let found = trained::score(&compiled, &windows).unwrap();
        println!("{name}: {found:?}");
        // 0.3 points of 384 tokens is one.
        assert!(found.ring.abs_diff(found.clear) <= 1, "{name}: {found:?}");
        assert!(found.clear * 4 > found.tokens, "{name} knows nothing");
    }
}

/// Adapters beside queries, keys and values come last where bytes count: nothing of their size is opened, and the parties
/// answer as the model does.
#[test]
fn adapters_are_multiplied_last() {
    let folder = tempfile::tempdir().unwrap();
    let write = |tuning: &str| {
        let tuning = Tuning::named(tuning, 2).unwrap();
        let path = folder.path().join(format!("{}.onnx", tuning.lora_rank));
        let sizes = Gpt2 {
            layers: 2,
            width: 256,
            heads: 2,
            inner: 512,
            tokens: 32,
            past: 0,
            vocabulary: 64,
            head: true,
            tuning,
        };
        sizes.write(&path).unwrap();
        path
    };
    let (base, model) = (write("base"), write("lora-attention"));
    let compiled =
        compile(&model, &Request { network: "1Mbit,0ms".parse().unwrap(), ..against(base) }).unwrap();
    let saves =
        |name: &str| compiled.rewrites.fired.iter().any(|rule| rule.name == name && rule.saves_s > 0.0);
    for rule in ["move-thin-sum", "heads-of-thin", "product-of-thin-sum", "thin-last", "norm-centre"] {
        assert!(saves(rule), "{rule}: {:?}", compiled.rewrites.fired);
    }
    let out = tempfile::tempdir().unwrap();
    bundle::write(out.path(), &compiled.graph, &compiled.lowered).unwrap();
    let sample = marill_compiler::calibrate::synthesise(&compiled.reference);
    let found = run(out.path(), &sample, &BTreeMap::new()).outputs;
    for (name, expected) in ir::interpret(&compiled.reference, &sample).unwrap() {
        let agreement = compare(&found[&name], &expected, None);
        assert!(agreement.max_abs_error < 1e-2, "{name}: {}", agreement.max_abs_error);
    }
}

/// Two parties answer as the trained model does in the clear, window after window.
#[test]
fn parties_answer_as_the_trained_model() {
    let Some(shared) = shared() else { return };
    let folder = shared.join("trained");
    let compiled = trained::compile_trained(&folder, "marill", "base_paired").unwrap();
    let out = tempfile::tempdir().unwrap();
    bundle::write(out.path(), &compiled.graph, &compiled.lowered).unwrap();
    for window in trained::held_out(&folder, 2).unwrap() {
        let sample = trained::input(&window).unwrap();
        let outputs = run(out.path(), &sample, &BTreeMap::new()).outputs;
        let clear: BTreeMap<_, _> =
            ir::interpret(&compiled.reference, &sample).unwrap().into_iter().collect();
        let found = compare(&outputs["logits"], &clear["logits"], None);
        assert!(found.max_abs_error < 1e-2, "{}", found.max_abs_error);
        assert_eq!((found.same_top, found.rows), (trained::TOKENS, trained::TOKENS));
    }
}
