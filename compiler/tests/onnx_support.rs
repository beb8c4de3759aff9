//! `docs/onnx-support.md` says what the importer's table says. `UPDATE_DOCS=1` rewrites it, but for the models.

use std::fmt::Write;
use std::path::Path;

use marill_compiler::import::ops::{Cost, OPERATORS, Operator};
use marill_compiler::import::{MAX_OPSET, MIN_OPSET};

fn document() -> String {
    let mut text = format!(
        "# Supported ONNX operators\n\n\
         Generated from the importer's table; `UPDATE_DOCS=1 cargo test -p marill-compiler onnx_support`\n\
         rewrites it.\n\n\
         Models of opset {MIN_OPSET} to {MAX_OPSET} of ONNX's own domain are read. Floats of every width become f32, integers i64. Operators\n\
         whose result follows from shapes and small constants alone are computed while importing. A model with other\n\
         operators is refused; the message names all their nodes that an output needs.\n\n\
         * **Local functions** (`ModelProto.functions`) stand in place of their calls, before an operator of the same domain,\n  \
         name and overload. None may call itself, and all calls together may not grow the model beyond 2^20 fields.\n\
         * **`If`**: the branch that is taken stands in its place if the condition is known when compiling; the other is not\n  \
         looked at. `Loop` and `Scan` are not read.\n\
         * **`com.microsoft`** is what onnxruntime's optimiser writes. Positions that a mask there forbids count for nothing,\n  \
         where onnxruntime adds -10000 to their scores: rows without a single allowed position differ.\n\n\
         *On shares* is what a node costs where no party knows its operands: what one party knows is computed there.\n\n\
         | on shares | |\n|---|---|\n"
    );
    for cost in COSTS {
        let (name, meaning) = spelled(cost);
        writeln!(text, "| {name} | {meaning} |").unwrap();
    }
    text.push_str("\n| domain | op_type | opsets | on shares | notes |\n|---|---|---|---|---|\n");
    for Operator { domain, op_type, since, cost, notes, .. } in OPERATORS {
        let domain = if domain.is_empty() { "ai.onnx" } else { domain };
        let cost = spelled(*cost).0;
        writeln!(text, "| {domain} | {op_type} | {since} to {MAX_OPSET} | {cost} | {notes} |").unwrap();
    }
    text
}

const COSTS: [Cost; 7] =
    [Cost::Free, Cost::Product, Cost::LookUp, Cost::Comparison, Cost::Root, Cost::Composite, Cost::Known];

fn spelled(cost: Cost) -> (&'static str, &'static str) {
    match cost {
        Cost::Free => ("free", "nothing is sent"),
        Cost::Product => ("product", "a product, free if one factor is public"),
        Cost::LookUp => ("look-up", "a look-up in a table"),
        Cost::Comparison => ("comparison", "comparisons"),
        Cost::Root => ("root", "comparisons, look-ups and products; free by a public number"),
        Cost::Composite => ("several", "several of these"),
        Cost::Known => ("no", "a party must know the operands"),
    }
}

#[test]
fn the_page_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/onnx-support.md");
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    // `tests/families.rs` writes the rest.
    let (operators, models) = found.split_at(found.find("## Models\n").unwrap_or(found.len()));
    let expected = document();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{expected}\n{models}")).unwrap();
        return;
    }
    assert!(
        operators.trim_end() == expected.trim_end(),
        "docs/onnx-support.md is stale, rewrite it with UPDATE_DOCS=1"
    );
}
