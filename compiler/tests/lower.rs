//! Snapshots of the stages behind the e-graph: the rings of a graph's values, and the program's instructions.

use std::path::Path;

use marill_compiler::ir::text::{TextOptions, parse, print};
use marill_compiler::report::with_encodings;
use marill_compiler::{Request, lower_and_check, ownership, rewrite};
use marill_program::Suite;

fn snapshot(folder: &str, name: &str) {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files");
    let text = std::fs::read_to_string(files.join(folder).join(format!("{name}.ir"))).unwrap();
    let mut graph = parse(&text).unwrap();
    ownership::assign(&mut graph, &Default::default()).unwrap();
    let (graph, _) = rewrite::rewrite(graph, &Default::default()).unwrap();
    let (lowered, program) =
        lower_and_check(&graph, &Request { suite: Suite::Dealer, ..Request::default() }, name).unwrap();
    let graph = with_encodings(&graph, &lowered, &program);
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(files.join("lower"));
    settings.set_prepend_module_to_snapshot(false);
    settings.bind(|| {
        insta::assert_snapshot!(format!("{name}_encodings"), print(&graph, TextOptions { names: false }));
        insta::assert_snapshot!(format!("{name}_program"), program.to_string());
    });
}

#[test]
fn post_norm() {
    snapshot("rewrite", "post_norm");
}

#[test]
fn attention() {
    snapshot("lower", "attention");
}
