//! Every operation on shared values, run in both suites, against the same operation in the clear.

use std::collections::BTreeMap;

use crate::support::parties::{run, run_alone};
use marill_compiler::ir::{Constant, Graph, Owner, ValueId};
use marill_compiler::precision::headroom;
use marill_compiler::{Request, bundle, lower_and_check, ownership};
use marill_plaintext::{DType, GeluForm, Op, Receiver, Tensor, TensorType, evaluate};
use marill_program::{Instruction, Network, Suite};

/// Deterministic numbers in [-1, 1).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 40) as f32 / (1u64 << 23) as f32) - 1.0
    }

    fn tensor(&mut self, shape: &[usize], low: f32, high: f32) -> Tensor {
        let count = shape.iter().product();
        let data = (0..count).map(|_| low + (high - low) * (self.next() + 1.0) / 2.0).collect();
        Tensor::f32(shape, data).unwrap()
    }
}

/// A graph under test: values are the sum of a client's and a server's input, so nobody knows them.
struct Case {
    graph: Graph,
    client: BTreeMap<String, Tensor>,
    server: BTreeMap<String, Tensor>,
    numbers: Numbers,
    network: Network,
}

impl Case {
    fn new() -> Case {
        Case {
            graph: Graph::default(),
            client: BTreeMap::new(),
            server: BTreeMap::new(),
            numbers: Numbers(7),
            network: Request::default().network,
        }
    }

    /// A shared value, split at random; the value itself.
    fn shared(&mut self, value: &Tensor) -> ValueId {
        let own = self.numbers.tensor(value.shape(), -2.0, 2.0);
        let rest = evaluate(&Op::Sub, &[value, &own]).unwrap();
        let index = self.client.len();
        let (x, s) = (format!("x{index}"), format!("s{index}"));
        let a = self.graph.add_input(&x, rest.ty());
        let b = self.graph.add_input(&s, own.ty());
        self.client.insert(x, rest);
        self.server.insert(s, own);
        self.graph.apply(Op::Add, &[a, b], "shared").unwrap()
    }

    fn constant(&mut self, name: &str, tensor: Tensor) -> ValueId {
        self.graph.add_constant(name, Constant::inline(tensor))
    }

    /// The largest error of what the client learns of `value`.
    fn error(self, value: ValueId, expected: &Tensor) -> f32 {
        let owners = self.server.keys().map(|name| (name.clone(), Owner::Server)).collect();
        self.error_with(&owners, value, expected)
    }

    /// The same where the inputs have these owners.
    fn error_with(mut self, owners: &BTreeMap<String, Owner>, value: ValueId, expected: &Tensor) -> f32 {
        self.graph.add_output("y", value, Owner::Client);
        ownership::assign(&mut self.graph, owners).unwrap();
        let error = |suite: Suite| {
            let request = Request { suite, network: self.network, ..Request::default() };
            let (lowered, _) = lower_and_check(&self.graph, &request, "case").unwrap();
            let mut steps = lowered.program.instructions.iter();
            let counts = steps.any(|step| matches!(step.instruction, Some(Instruction::OneHot(_))));
            assert!(counts || self.network != Network::WAN);
            let directory = tempfile::tempdir().unwrap();
            bundle::write(directory.path(), &self.graph, &lowered).unwrap();
            let outputs = match suite {
                Suite::Dealer => run(directory.path(), &self.client, &self.server).outputs,
                Suite::TwoParty => run_alone(directory.path(), &self.client, &self.server),
            };
            worst(&outputs["y"], expected)
        };
        error(Suite::Dealer).max(error(Suite::TwoParty))
    }
}

fn worst(found: &Tensor, expected: &Tensor) -> f32 {
    let (found, expected) = (found.to_f32_vec().unwrap(), expected.to_f32_vec().unwrap());
    assert_eq!(found.len(), expected.len());
    found.iter().zip(&expected).map(|(f, e)| (f - e).abs() / e.abs().max(1.0)).fold(0.0, f32::max)
}

/// Shape and range of an operand.
type Operand = (&'static [usize], f32, f32);

/// One operation on shared operands of the given shapes and ranges; the bound is relative to max(1, |result|).
#[test]
fn on_shared_operands() {
    let gelu = |form| Op::Gelu { form };
    let wide: &[Operand] = &[(&[4, 64], -15.0, 15.0)];
    let row: &[Operand] = &[(&[5, 48], -6.0, 6.0)];
    let positive: &[Operand] = &[(&[3, 32], 0.02, 100.0)];
    let pair: &[Operand] = &[(&[4, 16], -7.0, 7.0), (&[4, 16], -7.0, 7.0)];
    let matrices: &[Operand] = &[(&[2, 3, 8], -2.0, 2.0), (&[2, 8, 5], -2.0, 2.0)];
    let cases: Vec<(Op, &[Operand], f32)> = vec![
        (Op::Add, pair, 1e-4),
        (Op::Sub, pair, 1e-4),
        (Op::Neg, wide, 1e-4),
        (Op::Mul, pair, 2e-3),
        (Op::MatMul, matrices, 2e-3),
        (gelu(GeluForm::Erf), wide, 1e-3),
        (gelu(GeluForm::Tanh), wide, 1e-3),
        // About the ends of the window.
        (gelu(GeluForm::Erf), &[(&[4, 64], 3.7, 4.2)], 5e-4),
        (gelu(GeluForm::Erf), &[(&[4, 64], -4.2, -3.7)], 5e-4),
        (Op::Silu, wide, 1e-3),
        (Op::Tanh, wide, 1e-3),
        (Op::Sigmoid, wide, 1e-3),
        (Op::Erf, wide, 1e-3),
        (Op::Relu, wide, 1e-3),
        (Op::Abs, wide, 1e-3),
        (Op::Clip { min: -3.0, max: 4.5 }, wide, 1e-3),
        (Op::Max, pair, 1e-3),
        (Op::Min, pair, 1e-3),
        (Op::Exp, &[(&[4, 16], -9.0, 1.5)], 1e-3),
        (Op::Sqrt, positive, 1e-3),
        (Op::Rsqrt, positive, 1e-3),
        (Op::Reciprocal, positive, 1e-3),
        (Op::Softmax { axis: 1 }, row, 1e-3),
        (Op::Softmax { axis: 0 }, row, 1e-3),
        (Op::LayerNorm { epsilon: 1e-5 }, row, 1e-3),
        (Op::RmsNorm { epsilon: 1e-5 }, row, 1e-3),
        (Op::ReduceSum { axes: vec![1], keepdims: true }, &[(&[5, 8], -6.0, 6.0)], 1e-3),
        (Op::ReduceMean { axes: vec![0, 1], keepdims: false }, row, 1e-3),
        (Op::ReduceMax { axes: vec![1], keepdims: false }, row, 1e-3),
        (Op::Transpose { perm: vec![1, 0] }, row, 1e-4),
        (Op::Slice { axis: 1, start: 40, end: 3, step: -7 }, row, 1e-4),
        (Op::Concat { axis: 0 }, pair, 1e-4),
        (Op::Tile { repeats: vec![2, 1] }, row, 1e-4),
    ];
    for (op, operands, bound) in cases {
        let mut case = Case::new();
        let values: Vec<Tensor> =
            operands.iter().map(|&(shape, low, high)| case.numbers.tensor(shape, low, high)).collect();
        let ids: Vec<ValueId> = values.iter().map(|v| case.shared(v)).collect();
        let result = case.graph.apply(op.clone(), &ids, "result").unwrap();
        let expected = evaluate(&op, &values.iter().collect::<Vec<_>>()).unwrap();
        let error = case.error(result, &expected);
        println!("{op}: {error:.1e}");
        assert!(error <= bound, "{op}: {error}");
    }
}

/// Products of a shared value with what the server, the client or everybody knows.
#[test]
fn products_in_every_mix_of_owners() {
    for op in [Op::Mul, Op::MatMul] {
        for owner in [Owner::Server, Owner::Client, Owner::Public] {
            let mut case = Case::new();
            let x = case.numbers.tensor(&[6, 6], -3.0, 3.0);
            let w = case.numbers.tensor(&[6, 6], -2.0, 2.0);
            let shared = case.shared(&x);
            let known = match owner {
                Owner::Server => case.constant("weight", w.clone()),
                _ => {
                    case.client.insert("known".into(), w.clone());
                    case.graph.add_input("known", w.ty())
                }
            };
            let result = case.graph.apply(op.clone(), &[shared, known], "result").unwrap();
            if owner == Owner::Public {
                case.server.insert("known".into(), w.clone());
            }
            let mut owners: BTreeMap<String, Owner> = BTreeMap::new();
            owners.extend(case.server.keys().map(|name| (name.clone(), Owner::Server)));
            if owner == Owner::Public {
                owners.insert("known".into(), Owner::Public);
            }
            let expected = evaluate(&op, &[&x, &w]).unwrap();
            let error = case.error_with(&owners, result, &expected);
            assert!(error <= 2e-3, "{op} with {owner:?}: {error}");
        }
    }
}

/// The index of the largest element, and rows of a private table at a shared index.
#[test]
fn argmax_and_embedding_by_a_shared_index() {
    let mut case = Case::new();
    let x = case.numbers.tensor(&[5, 37], -8.0, 8.0);
    let table = case.numbers.tensor(&[37, 6], -1.0, 1.0);
    let shared = case.shared(&x);
    let op = Op::ArgMax { axis: 1, keepdims: false };
    let index = case.graph.apply(op.clone(), &[shared], "index").unwrap();
    let rows = case.constant("table", table.clone());
    let picked = case.graph.apply(Op::Gather { axis: 0 }, &[rows, index], "picked").unwrap();
    case.graph.add_output("index", index, Owner::Client);
    let indices = evaluate(&op, &[&x]).unwrap();
    let expected = evaluate(&Op::Gather { axis: 0 }, &[&table, &indices]).unwrap();
    let error = case.error(picked, &expected);
    assert!(error <= 1e-3, "{error}");
}

/// Over a slow network the largest of a row of scores is found by counting. Rows keep some positions and one keeps none.
#[test]
fn softmax_on_a_slow_network() {
    let scores = |case: &mut Case| case.numbers.tensor(&[2, 5, 9], -50.0, 50.0);
    let keep = |at: usize| at / 9 != 3 && (at % 9 <= at / 9 || at.is_multiple_of(4));
    let keep = Tensor::bool([5, 9], (0..45).map(keep).collect()).unwrap();
    for masked in [false, true] {
        let mut case = Case { network: Network::WAN, ..Case::new() };
        let x = scores(&mut case);
        let shared = case.shared(&x);
        let kept = case.constant("keep", keep.clone());
        let (op, args) = match masked {
            true => (Op::AttentionSoftmax, vec![shared, kept]),
            false => (Op::Softmax { axis: 2 }, vec![shared]),
        };
        let values: Vec<&Tensor> = [&x, &keep].into_iter().take(args.len()).collect();
        let expected = evaluate(&op, &values).unwrap();
        let result = case.graph.apply(op, &args, "result").unwrap();
        let error = case.error(result, &expected);
        assert!(error <= 1e-3, "{error}");
    }
}

/// A score beyond the levels would be counted as another: samples show it, to either side.
#[test]
fn scores_beyond_the_levels_are_noticed() {
    for (beyond, is_noticed) in [(0.0, false), (90.0, true), (-90.0, true)] {
        let mut case = Case { network: Network::WAN, ..Case::new() };
        let mut scores = vec![0.0; 36];
        scores[5] = beyond;
        let x = Tensor::f32([4, 9], scores).unwrap();
        let shared = case.shared(&x);
        let result = case.graph.apply(Op::Softmax { axis: 1 }, &[shared], "result").unwrap();
        case.graph.add_output("y", result, Owner::Client);
        let owners = case.server.keys().map(|name| (name.clone(), Owner::Server)).collect();
        ownership::assign(&mut case.graph, &owners).unwrap();
        let sample: BTreeMap<String, Tensor> = case.client.into_iter().chain(case.server).collect();
        for suite in [Suite::Dealer, Suite::TwoParty] {
            let request = Request { suite, network: Network::WAN, ..Request::default() };
            let (lowered, program) = lower_and_check(&case.graph, &request, "case").unwrap();
            let check =
                headroom::check(&case.graph, &lowered, &program, std::slice::from_ref(&sample)).unwrap();
            let overflow = headroom::first_overflow(&check);
            assert_eq!(overflow.is_some(), is_noticed, "{beyond}: {overflow:?}");
        }
    }
}

/// A choice by a condition that the client knows.
#[test]
fn choice_by_a_private_condition() {
    let mut case = Case::new();
    let (a, b) = (case.numbers.tensor(&[4, 8], -5.0, 5.0), case.numbers.tensor(&[4, 8], -5.0, 5.0));
    let condition = Tensor::bool([4, 8], (0..32).map(|i| i % 3 == 0).collect()).unwrap();
    let (x, y) = (case.shared(&a), case.shared(&b));
    let known = case.graph.add_input("condition", TensorType::new(DType::Bool, [4, 8]));
    case.client.insert("condition".into(), condition.clone());
    let result = case.graph.apply(Op::Where, &[known, x, y], "result").unwrap();
    let expected = evaluate(&Op::Where, &[&condition, &a, &b]).unwrap();
    let error = case.error(result, &expected);
    assert!(error <= 1e-3, "{error}");
}

/// A division by what the client or the server knows.
#[test]
fn divisors_in_the_clear() {
    for of_client in [true, false] {
        let mut case = Case::new();
        let x = case.numbers.tensor(&[4, 6], -9.0, 9.0);
        let counts = Tensor::f32([4, 1], vec![1.0, 7.0, 60.0, 512.0]).unwrap();
        let shared = case.shared(&x);
        let divisor = case.graph.add_input("counts", counts.ty());
        let mine = if of_client { &mut case.client } else { &mut case.server };
        mine.insert("counts".into(), counts.clone());
        let result = case.graph.apply(Op::Div, &[shared, divisor], "result").unwrap();
        let expected = evaluate(&Op::Div, &[&x, &counts]).unwrap();
        let error = case.error(result, &expected);
        assert!(error <= 5e-4, "{error}");
    }
}

/// A rotary embedding whose tables are computed of positions that the client has.
#[test]
fn rotary_tables_of_the_clients_positions() {
    let mut case = Case::new();
    let x = case.numbers.tensor(&[2, 5, 8], -4.0, 4.0);
    let positions = Tensor::i64([5, 1], vec![3, 0, 17, 4, 40]).unwrap();
    let frequencies = Tensor::f32([1, 8], [1.0, 0.3, 0.1, 0.03].repeat(2)).unwrap();
    let shared = case.shared(&x);
    let places = case.graph.add_input("positions", positions.ty());
    case.client.insert("positions".into(), positions.clone());
    let stored = case.constant("frequencies", frequencies.clone());
    let steps = case.graph.apply(Op::Cast { to: DType::F32 }, &[places], "steps").unwrap();
    let angles = case.graph.apply(Op::MatMul, &[steps, stored], "angles").unwrap();
    let tables: Vec<ValueId> =
        [Op::Cos, Op::Sin].map(|op| case.graph.apply(op, &[angles], "table").unwrap()).to_vec();
    let result = case.graph.apply(Op::Rotary, &[shared, tables[0], tables[1]], "result").unwrap();
    assert_eq!(ownership::constant_owner(&case.graph, stored), Owner::Public);
    let angles = evaluate(&Op::MatMul, &[&positions.cast(DType::F32), &frequencies]).unwrap();
    let (cos, sin) = (evaluate(&Op::Cos, &[&angles]).unwrap(), evaluate(&Op::Sin, &[&angles]).unwrap());
    let expected = evaluate(&Op::Rotary, &[&x, &cos, &sin]).unwrap();
    let error = case.error(result, &expected);
    assert!(error <= 1e-3, "{error}");
}

/// Parts of a shared value at indices that the client knows, along any axis.
#[test]
fn rows_at_the_clients_indices() {
    for (axis, indices) in [(0, vec![2, 0]), (1, vec![-1, 4]), (2, vec![3, 3])] {
        let mut case = Case::new();
        let x = case.numbers.tensor(&[3, 5, 4], -6.0, 6.0);
        let indices = Tensor::i64([2, 1], indices).unwrap();
        let shared = case.shared(&x);
        let places = case.graph.add_input("places", indices.ty());
        case.client.insert("places".into(), indices.clone());
        let result = case.graph.apply(Op::Gather { axis }, &[shared, places], "result").unwrap();
        let expected = evaluate(&Op::Gather { axis }, &[&x, &indices]).unwrap();
        let error = case.error(result, &expected);
        assert!(error <= 1e-3, "axis {axis}: {error}");
    }
}

/// Integers of one party and of the other.
#[test]
fn sums_of_integers() {
    let mut case = Case::new();
    let (x, y) =
        (Tensor::i64([4], vec![3, -7, 0, 60]).unwrap(), Tensor::i64([4], vec![-5, 9, 1, 2]).unwrap());
    let (a, b) = (case.graph.add_input("a", x.ty()), case.graph.add_input("b", y.ty()));
    case.client.insert("a".into(), x.clone());
    case.server.insert("b".into(), y.clone());
    let sum = case.graph.apply(Op::Add, &[a, b], "sum").unwrap();
    let result = case.graph.apply(Op::Cast { to: DType::F32 }, &[sum], "result").unwrap();
    let error = case.error(result, &evaluate(&Op::Add, &[&x, &y]).unwrap().cast(DType::F32));
    assert!(error <= 1e-6, "{error}");
}

/// A weight that is kept as integers.
#[test]
fn integers_as_weights() {
    let mut case = Case::new();
    let x = case.numbers.tensor(&[6, 6], -3.0, 3.0);
    let stored = Tensor::i64([6, 6], (0..36).map(|i| i % 7 - 3).collect()).unwrap();
    let shared = case.shared(&x);
    let constant = case.constant("stored", stored.clone());
    let weight = case.graph.apply(Op::Cast { to: DType::F32 }, &[constant], "weight").unwrap();
    let result = case.graph.apply(Op::MatMul, &[shared, weight], "result").unwrap();
    assert_eq!(ownership::constant_owner(&case.graph, constant), Owner::Server);
    let expected = evaluate(&Op::MatMul, &[&x, &stored.cast(DType::F32)]).unwrap();
    let error = case.error(result, &expected);
    assert!(error <= 2e-3, "{error}");
}

/// Constants that are outputs: the server's are revealed, everybody's are there already.
#[test]
fn constants_are_outputs() {
    for owner in [Owner::Server, Owner::Public] {
        let mut case = Case::new();
        let value = case.numbers.tensor(&[3, 4], -5.0, 5.0);
        let stored = case.constant("stored", value.clone());
        case.graph.node_mut(stored).facts.owner = Some(owner);
        let turned = case.graph.apply(Op::Neg, &[stored], "turned").unwrap();
        let revealed = case.graph.apply(Op::Reveal { to: Receiver::Client }, &[turned], "revealed").unwrap();
        let error = case.error(revealed, &evaluate(&Op::Neg, &[&value]).unwrap());
        assert!(error <= 1e-3, "{owner:?}: {error}");
    }
}
