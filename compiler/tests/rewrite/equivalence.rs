//! On random graphs: the same function, complete facts, one result however often it runs and whatever the private
//! elements are.

use std::collections::BTreeMap;

use marill_compiler::ir::{Constant, Graph, NodeKind, Owner, TextOptions, ValueId, interpret, print, verify};
use marill_compiler::ownership::assign;
use marill_compiler::rewrite::{RewriteOptions, rewrite};
use marill_plaintext::{DType, GeluForm, Op, Tensor, TensorType};
use proptest::prelude::*;

fn tensor(shape: &[usize], seed: usize) -> Tensor {
    let count = shape.iter().product::<usize>();
    let element = |i: usize| ((i * 37 + seed * 101 + 11) % 29) as f32 / 10.0 - 1.35;
    Tensor::f32(shape, (0..count).map(element).collect()).unwrap()
}

/// Adds a layer chosen by `kind` on one or two earlier values; nothing if the choice does not fit their shapes.
fn grow(
    graph: &mut Graph,
    values: &mut Vec<ValueId>,
    (kind, first, second, number): (u8, usize, usize, usize),
) {
    let x = values[values.len() - 1 - first % values.len().min(3)];
    let y = values[values.len() - 1 - second % values.len()];
    let shape = graph.shape(x).to_vec();
    let (rank, width) = (shape.len(), shape[shape.len() - 1]);
    let weight = |graph: &mut Graph, shape: &[usize]| graph.add_constant("w", tensor(shape, number));
    let scalar = |graph: &mut Graph, value: f32| graph.add_constant("scalar", Tensor::scalar_f32(value));
    let factor = [1.0, 0.5, -2.0, 0.25][number % 4];
    let half = (width / 2) as i64;
    let (op, args) = match kind {
        0..=3 => (Op::MatMul, vec![x, weight(graph, &[width, 1 + number % 6])]),
        4 | 5 => (Op::Add, vec![weight(graph, &[width]), x]),
        6 => (Op::Mul, vec![x, weight(graph, &[width])]),
        7 | 8 => (Op::Mul, vec![x, scalar(graph, factor)]),
        9 => (Op::Div, vec![x, scalar(graph, factor)]),
        10 => (Op::Sub, vec![x, weight(graph, &[1, width])]),
        11 => (Op::Neg, vec![x]),
        12 | 13 => {
            let [gain, bias] = [1, 2].map(|_| weight(graph, &[width]));
            (Op::LayerNorm { epsilon: 0.1 }, vec![x, gain, bias])
        }
        14 => (Op::RmsNorm { epsilon: 0.1 }, vec![x, weight(graph, &[width])]),
        15 => (Op::Slice { axis: rank - 1, start: half, end: width as i64, step: 1 }, vec![x]),
        16 => (Op::Slice { axis: 0, start: 0, end: 1, step: 1 }, vec![x]),
        17 => (Op::Transpose { perm: (0..rank).rev().collect() }, vec![x]),
        18 => (Op::Reshape { shape: [&shape[..rank - 1], &[1, width]].concat() }, vec![x]),
        19 => (Op::Reshape { shape: vec![shape.iter().product::<usize>() / width, width] }, vec![x]),
        20 => (Op::Concat { axis: rank - 1 }, vec![x, y]),
        21 | 22 => (Op::Add, vec![x, y]),
        23 => (Op::Mul, vec![x, y]),
        24 => (Op::MatMul, vec![x, y]),
        25 => (Op::Softmax { axis: rank - 1 }, vec![x]),
        _ => (Op::Gelu { form: GeluForm::Erf }, vec![x]),
    };
    if rank < 5
        && let Ok(value) = graph.apply(op, &args, format!("v{}", values.len()))
    {
        values.push(value);
    }
}

fn graph() -> impl Strategy<Value = Graph> {
    let choice = (0u8..27, 0usize..8, 0usize..8, 0usize..100);
    (prop::collection::vec(choice, 3..24), any::<bool>()).prop_map(|(choices, mixed)| {
        let mut graph = Graph::default();
        let ty = TensorType { dtype: DType::F32, shape: vec![2, 3, 4] };
        let mut values = vec![graph.add_input("x", ty.clone()), graph.add_input("y", ty)];
        if mixed {
            values.push(graph.apply(Op::Add, &[values[0], values[1]], "mixed").unwrap());
        }
        choices.into_iter().for_each(|choice| grow(&mut graph, &mut values, choice));
        graph.add_output("a", values[values.len() - 1], Owner::Client);
        graph.add_output("b", values[values.len() / 2], Owner::Client);
        assign(&mut graph, &BTreeMap::from([("y".to_owned(), Owner::Server)])).unwrap();
        graph
    })
}

/// The text without the elements of private constants.
fn public_text(graph: &Graph) -> String {
    let text = print(graph, TextOptions { names: true });
    let hide = |line: &str| match (line.contains("= constant"), line.rsplit_once(" @server")) {
        (true, Some((before, _))) => before.split_once("] ").map_or(before, |(ty, _)| ty).to_owned(),
        _ => line.to_owned(),
    };
    text.lines().map(hide).collect::<Vec<_>>().join("\n")
}

/// Small enough that a graph of scales alone, whose products are many, takes no time.
fn options() -> RewriteOptions {
    RewriteOptions { max_terms: 2000, ..RewriteOptions::default() }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn the_function_stays(graph in graph()) {
        let inputs = BTreeMap::from([("x", 3), ("y", 8)].map(|(name, seed)| (name.to_owned(), tensor(&[2, 3, 4], seed))));
        let (rewritten, report) = rewrite(graph.clone(), &options()).unwrap();
        prop_assert!(verify(&rewritten).is_ok());
        prop_assert!(report.cost_after_s <= report.cost_before_s);
        for id in rewritten.topological() {
            let args = rewritten.args(id);
            let owners = args.iter().map(|&arg| rewritten.node(arg).facts.owner.unwrap());
            let expected = rewritten.op(id).map(|op| Owner::of_result(op, owners));
            prop_assert!(rewritten.node(id).facts.owner.is_some());
            prop_assert!(expected.is_none() || expected == rewritten.node(id).facts.owner);
        }
        let (before, after) = (interpret(&graph, &inputs).unwrap(), interpret(&rewritten, &inputs).unwrap());
        for ((name, before), (same, after)) in before.into_iter().zip(after) {
            prop_assert_eq!(name, same);
            prop_assert_eq!(before.ty(), after.ty());
            let (before, after) = (before.to_f32_vec().unwrap(), after.to_f32_vec().unwrap());
            let largest = before.iter().fold(1.0f32, |largest, x| largest.max(x.abs()));
            for (x, y) in before.iter().zip(&after) {
                prop_assert!((x - y).abs() <= 2e-3 * largest, "{} became {}", x, y);
            }
        }
    }

    #[test]
    fn the_result_depends_on_nothing_private(graph in graph()) {
        let options = options();
        let (first, report) = rewrite(graph.clone(), &options).unwrap();
        let (again, same) = rewrite(graph.clone(), &options).unwrap();
        let all = TextOptions { names: true };
        prop_assert_eq!(print(&first, all), print(&again, all));
        prop_assert_eq!(&report, &same);
        for element in [0.0, 1.0, f32::NAN] {
            let mut special = graph.clone();
            for id in graph.topological() {
                if graph.constant(id).is_some() && graph.node(id).facts.owner == Some(Owner::Server) {
                    let elements = vec![element; graph.ty(id).len()];
                    let uniform = Tensor::f32(graph.shape(id), elements).unwrap();
                    special.node_mut(id).kind = NodeKind::Constant(Constant::inline(uniform));
                }
            }
            let (special, same) = rewrite(special, &options).unwrap();
            prop_assert_eq!(public_text(&first), public_text(&special));
            prop_assert_eq!(&report, &same);
        }
    }
}
