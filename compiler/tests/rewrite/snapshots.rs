//! What becomes of small graphs, each about one thing that the stage is for.

use std::collections::BTreeMap;
use std::path::Path;

use marill_compiler::ir::{TextOptions, parse, print, verify};
use marill_compiler::ownership::assign;
use marill_compiler::rewrite::{RewriteOptions, rewrite};

fn rewritten(name: &str) -> String {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/rewrite").join(name).with_extension("ir");
    let mut graph = parse(&std::fs::read_to_string(path).unwrap()).unwrap();
    assign(&mut graph, &BTreeMap::new()).unwrap();
    let (graph, report) = rewrite(graph, &RewriteOptions::default()).unwrap();
    verify(&graph).unwrap();
    assert!(report.is_saturated);
    let fired: Vec<String> =
        report.fired.iter().map(|rule| format!("{} {}", rule.name, rule.count)).collect();
    let micros = |s: f64| (s * 1e6).round();
    let (before, after) = (micros(report.cost_before_s), micros(report.cost_after_s));
    format!("{}\n{before} us to {after} us\n\n{}", fired.join("\n"), print(&graph, TextOptions::default()))
}

#[test]
fn small_graphs() {
    insta::with_settings!({ snapshot_path => "../files/rewrite", prepend_module_to_snapshot => false, omit_expression => true }, {
        for name in ["fused_attention", "post_norm", "low_rank", "rotary_query", "arithmetic", "client_side", "pooled_row"] {
            insta::assert_snapshot!(name, rewritten(name));
        }
    });
}
