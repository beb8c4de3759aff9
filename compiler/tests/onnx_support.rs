//! `docs/onnx-support.md` says what the importer's table says. `UPDATE_DOCS=1` rewrites it.

use std::fmt::Write;
use std::path::Path;

use marill_compiler::import::ops::OPERATORS;
use marill_compiler::import::{MAX_OPSET, MIN_OPSET};

fn document() -> String {
    let mut text = format!(
        "# Supported ONNX operators\n\n\
         Generated from the importer's table; `UPDATE_DOCS=1 cargo test -p marill-compiler --test onnx_support`\n\
         rewrites it.\n\n\
         Models of opset {MIN_OPSET} to {MAX_OPSET} of ONNX's own domain are read. Other domains, local functions and\n\
         control flow (`If`, `Loop`, `Scan`) are not. Floats of every width become f32, integers i64. Operators whose\n\
         result follows from shapes and small constants alone are computed while importing.\n\n\
         | op_type | opsets | notes |\n|---|---|---|\n"
    );
    for operator in OPERATORS {
        writeln!(text, "| {} | {} to {MAX_OPSET} | {} |", operator.op_type, operator.since, operator.notes)
            .unwrap();
    }
    text
}

#[test]
fn the_page_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/onnx-support.md");
    let expected = document();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "docs/onnx-support.md is stale, rewrite it with UPDATE_DOCS=1");
}
