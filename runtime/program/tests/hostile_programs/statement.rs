//! The leakage statement says what the program does.

use marill_program::flow::{Statement, check};
use marill_program::schema::*;
use marill_program::{Owner, Target, ValidProgram};

use crate::build::{Builder, I};
use crate::honest::everything;

fn statement(program: Program) -> Statement {
    let flow = check(&program).unwrap();
    Statement::new(&ValidProgram::new(program).unwrap(), &flow)
}

#[test]
fn everything_is_stated() {
    let statement = statement(everything().program);
    insta::assert_snapshot!(statement.to_string());
    let names = |inputs: &[marill_program::flow::HeldInput]| -> Vec<String> {
        inputs.iter().map(|input| input.name.clone()).collect()
    };
    assert_eq!(names(&statement.client.inputs), ["x", "index", "p"]);
    assert_eq!(names(&statement.server.inputs), ["s", "p"]);
    assert_eq!((statement.client.masked_weights.elements, statement.server.masked_weights.count), (12, 0));
    assert!(statement.server.sees.is_empty());
    let after = statement.client.sees.iter().find(|output| output.name == "after").unwrap();
    assert!(after.private_constants && after.inputs == ["x", "s", "p"] && after.bits == 3 * 40);
}

/// Two layers `x [8, 2] [2, 8]` and one that is not thin.
#[test]
fn thin_products_tell_their_rank() {
    let mut b = Builder::new();
    let mut x = b.input("x", Owner::Client, "f32[1,8]");
    x = b.shared(x);
    for layer in 0..3 {
        b.program.groups.push(format!("h.{layer}/down"));
        b.program.groups.push(format!("h.{layer}/up"));
        let between = if layer == 2 { 8 } else { 2 };
        for (half, (rows, columns)) in [(8, between), (between, 8)].into_iter().enumerate() {
            let w = b.constant(&format!("w{layer}.{half}"), Owner::Server, &format!("f32[{rows},{columns}]"));
            let w = b.weight(w);
            let opened = b.open(x, Target::Server);
            let product = b.matmul(opened, w);
            b.program.instructions[product as usize].group = 2 * layer + half as u32;
            let narrow = b.push(I::Truncate(Truncate { arg: product, shift: 10 }));
            let opened = b.push(I::Open(Open { arg: narrow, to: Target::Both as i32, width: 30 }));
            x = b.lift(opened);
        }
    }
    b.reveal("y", x, Target::Client);
    let statement = statement(b.program);
    let [rank] = statement.ranks.as_slice() else { panic!("{:?}", statement.ranks) };
    assert_eq!((rank.rows, rank.rank, rank.columns, rank.count), (8, 2, 8, 2));
    assert_eq!((rank.first.as_str(), rank.second.as_str()), ("h.*/down", "h.*/up"));
    assert!(statement.to_string().contains("rank 2: [8, 2] then [2, 8] in h.*/up x 2"), "{statement}");
    let [down, up] = statement.private_layers.as_slice() else { panic!("{:?}", statement.private_layers) };
    assert_eq!((down.count, down.constants.count, up.constants.elements), (3, 3, 16 + 16 + 64));
}
