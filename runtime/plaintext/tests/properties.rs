//! Properties of every operation: text round trip, `infer` against `evaluate`, broadcasting and products against
//! plain index loops.

use marill_plaintext::{DType, GeluForm, Op, OpError, Tensor, TensorType, broadcast_shapes, evaluate, infer};
use proptest::prelude::*;

/// Attribute lists mostly small, sometimes anything.
fn length() -> impl Strategy<Value = usize> {
    prop_oneof![8 => 0usize..4, 1 => any::<usize>()]
}

fn signed() -> impl Strategy<Value = i64> {
    prop_oneof![8 => -4i64..5, 1 => any::<i64>()]
}

fn float() -> impl Strategy<Value = f32> {
    any::<u32>().prop_map(f32::from_bits).prop_filter("NaN is not equal to itself", |x| !x.is_nan())
}

fn list() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(length(), 0..4)
}

fn dtype() -> impl Strategy<Value = DType> {
    prop::sample::select(vec![DType::F32, DType::I64, DType::Bool])
}

fn op() -> impl Strategy<Value = Op> {
    let plain = prop::sample::select(vec![
        Op::ScatterNd,
        Op::Add,
        Op::Sub,
        Op::Mul,
        Op::Div,
        Op::Pow,
        Op::Max,
        Op::Min,
        Op::Neg,
        Op::Abs,
        Op::Floor,
        Op::Sqrt,
        Op::Reciprocal,
        Op::Rsqrt,
        Op::Exp,
        Op::Log,
        Op::Sin,
        Op::Cos,
        Op::Erf,
        Op::Tanh,
        Op::Sigmoid,
        Op::Relu,
        Op::Not,
        Op::And,
        Op::Or,
        Op::Equal,
        Op::Less,
        Op::LessOrEqual,
        Op::Greater,
        Op::GreaterOrEqual,
        Op::Where,
        Op::IsNan,
        Op::MatMul,
        Op::AttentionSoftmax,
        Op::Gelu { form: GeluForm::Erf },
        Op::Gelu { form: GeluForm::Tanh },
        Op::Silu,
        Op::Rotary,
    ]);
    let movement = prop_oneof![
        list().prop_map(|shape| Op::Reshape { shape }),
        Just(vec![0usize, 1, 2]).prop_shuffle().prop_map(|perm| Op::Transpose { perm }),
        list().prop_map(|perm| Op::Transpose { perm }),
        length().prop_map(|axis| Op::Concat { axis }),
        (length(), signed(), signed(), signed()).prop_map(|(axis, start, end, step)| Op::Slice {
            axis,
            start,
            end,
            step
        }),
        list().prop_map(|shape| Op::Expand { shape }),
        length().prop_map(|axis| Op::Gather { axis }),
        length().prop_map(|batch_dims| Op::GatherNd { batch_dims }),
        list().prop_map(|repeats| Op::Tile { repeats }),
        (any::<bool>(), signed()).prop_map(|(upper, diagonal)| Op::Trilu { upper, diagonal }),
    ];
    let axes = || prop::sample::subsequence(vec![0usize, 1, 2, 3], 0..4);
    let reduction = prop_oneof![
        (axes(), any::<bool>()).prop_map(|(axes, keepdims)| Op::ReduceSum { axes, keepdims }),
        (axes(), any::<bool>()).prop_map(|(axes, keepdims)| Op::ReduceMean { axes, keepdims }),
        (axes(), any::<bool>()).prop_map(|(axes, keepdims)| Op::ReduceMax { axes, keepdims }),
        (length(), any::<bool>(), any::<bool>()).prop_map(|(axis, exclusive, reverse)| Op::CumSum {
            axis,
            exclusive,
            reverse
        }),
        (length(), any::<bool>()).prop_map(|(axis, keepdims)| Op::ArgMax { axis, keepdims }),
        length().prop_map(|axis| Op::Softmax { axis }),
    ];
    let pair = || [length(), length()];
    let rest = prop_oneof![
        (pair(), [length(), length(), length(), length()], pair(), length())
            .prop_map(|(strides, pads, dilations, group)| Op::Conv { strides, pads, dilations, group }),
        length().prop_map(|depth| Op::OneHot { depth }),
        (float(), float()).prop_map(|(min, max)| Op::Clip { min, max }),
        dtype().prop_map(|to| Op::Cast { to }),
        float().prop_map(|epsilon| Op::LayerNorm { epsilon }),
        float().prop_map(|epsilon| Op::RmsNorm { epsilon }),
    ];
    prop_oneof![3 => plain, 2 => movement, 2 => reduction, 1 => rest]
}

/// A tensor of small values, in up to four axes of length 0 to 3; some are views not in row-major order.
fn tensor() -> impl Strategy<Value = Tensor> {
    let shape = prop_oneof![
        prop::collection::vec(prop::sample::select(vec![1usize, 2, 2, 3]), 0..=4),
        prop::collection::vec(0usize..4, 0..=4),
    ];
    (dtype(), shape, prop::collection::vec(-3i64..4, 81), any::<bool>()).prop_map(
        |(dtype, shape, data, turn)| {
            let count = shape.iter().product::<usize>();
            let x = Tensor::i64(shape, data.into_iter().cycle().take(count).collect()).unwrap();
            let x = if turn { Tensor::I64(x.as_i64().unwrap().clone().reversed_axes()) } else { x };
            x.cast(dtype)
        },
    )
}

/// Operands of the types that `op` most often takes, so that many cases go through.
fn fitting(op: &Op, args: &mut [Tensor]) {
    let want = |i: usize| match (op, i) {
        (Op::Gather { .. } | Op::GatherNd { .. } | Op::ScatterNd, 1) | (Op::OneHot { .. }, 0) => DType::I64,
        (Op::AttentionSoftmax, 1) | (Op::Where, 0) | (Op::Not | Op::And | Op::Or, _) => DType::Bool,
        _ => DType::F32,
    };
    for (i, arg) in args.iter_mut().enumerate() {
        *arg = arg.cast(want(i));
    }
}

/// Every index of `shape`, in row-major order.
fn indices(shape: &[usize]) -> Vec<Vec<usize>> {
    shape.iter().fold(vec![vec![]], |all, &d| {
        all.iter().flat_map(|head| (0..d).map(move |i| [&head[..], &[i]].concat())).collect()
    })
}

/// The element of `x` at `index` of a shape that `x` broadcasts to.
fn at(x: &Tensor, index: &[usize]) -> f32 {
    let own = &index[index.len() - x.shape().len()..];
    let own: Vec<usize> = own.iter().zip(x.shape()).map(|(&i, &d)| if d == 1 { 0 } else { i }).collect();
    x.as_f32().unwrap()[own.as_slice()]
}

fn values(x: &Tensor) -> Vec<f32> {
    x.to_f32_vec().unwrap()
}

/// A shape and one that broadcasts with it.
fn two_shapes() -> impl Strategy<Value = (Vec<usize>, Vec<usize>)> {
    prop::collection::vec((0usize..4, 0usize..4), 0..=4).prop_flat_map(|axes| {
        let rank = axes.len();
        let side = |ones: usize| {
            axes.iter().map(move |&(d, one)| if one == ones { 1 } else { d }).collect::<Vec<_>>()
        };
        (Just(side(0)), Just(side(1)), 0..=rank).prop_map(|(a, b, from)| (a, b[from..].to_vec()))
    })
}

fn counting(shape: &[usize], step: usize) -> Tensor {
    let count = shape.iter().product::<usize>();
    Tensor::f32(shape, (0..count).map(|i| (i * step % 17) as f32 - 8.0).collect()).unwrap()
}

/// `a x b` by the definition of numpy's matmul on at least two axes.
fn plain_product(a: &Tensor, b: &Tensor, shape: &[usize]) -> Vec<f32> {
    let inner = a.shape()[a.shape().len() - 1];
    let term = |index: &[usize], t: usize| {
        let (batch, row, column) =
            (&index[..index.len() - 2], index[index.len() - 2], index[index.len() - 1]);
        at(a, &[batch, &[row, t]].concat()) * at(b, &[batch, &[t, column]].concat())
    };
    indices(shape).iter().map(|index| (0..inner).map(|t| term(index, t)).sum()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 4096, ..ProptestConfig::default() })]

    #[test]
    fn text_round_trips(op in op()) {
        let text = op.to_string();
        prop_assert!(text.starts_with(op.name()));
        prop_assert_eq!(text.parse::<Op>().unwrap(), op);
    }

    #[test]
    fn any_text_parses_or_errs(text in "[a-z_{}=,\\[\\]0-9.-]{0,40}") {
        if let Ok(op) = text.parse::<Op>() {
            prop_assert_eq!(op.to_string().parse::<Op>().unwrap(), op);
        }
    }

    #[test]
    fn evaluate_agrees_with_infer(op in op(), mut args in prop::collection::vec(tensor(), 0..4), fit in 0..4) {
        let most = *op.arity().end();
        if fit > 0 {
            args.truncate(most);
            fitting(&op, &mut args);
        }
        if fit > 1 && args.len() > 1 {
            // Operands of one shape: most binary operations then apply.
            args[1] = evaluate(&Op::Cast { to: args[1].dtype() }, &[&args[0]]).unwrap();
        }
        let types: Vec<TensorType> = args.iter().map(Tensor::ty).collect();
        let refs: Vec<&Tensor> = args.iter().collect();
        match (infer(&op, &types), evaluate(&op, &refs)) {
            (Ok(ty), Ok(result)) => prop_assert_eq!(ty, result.ty()),
            (Err(expected), Err(found)) => prop_assert_eq!(expected, found),
            (Ok(_), Err(error)) => {
                let of_elements =
                    matches!(error, OpError::IndexOutOfRange { .. } | OpError::DivisionByZero { .. } | OpError::OutOfMemory { .. });
                prop_assert!(of_elements, "{}: {}", op, error);
            }
            (Err(error), Ok(_)) => prop_assert!(false, "{} although {}", op, error),
        }
    }

    #[test]
    fn memory_order_does_not_matter(op in op(), mut args in prop::collection::vec(tensor(), 1..4)) {
        args.truncate(*op.arity().end());
        fitting(&op, &mut args);
        if args.len() > 1 {
            args[1] = args[0].cast(args[1].dtype());
        }
        let dense: Vec<Tensor> = args
            .iter()
            .map(|x| match x {
                Tensor::F32(a) => Tensor::f32(x.shape(), a.iter().copied().collect()),
                Tensor::I64(a) => Tensor::i64(x.shape(), a.iter().copied().collect()),
                Tensor::Bool(a) => Tensor::bool(x.shape(), a.iter().copied().collect()),
            }.unwrap())
            .collect();
        let run = |args: &[Tensor]| evaluate(&op, &args.iter().collect::<Vec<_>>()).map(|y| y.cast(DType::I64));
        prop_assert_eq!(run(&args), run(&dense));
    }

    #[test]
    fn broadcasting_follows_index_loops((a, b) in two_shapes()) {
        let shape = broadcast_shapes(&a, &b).unwrap();
        prop_assert_eq!(&shape, &broadcast_shapes(&b, &a).unwrap());
        let (x, y) = (counting(&a, 5), counting(&b, 3));
        let expected: Vec<f32> = indices(&shape).iter().map(|i| at(&x, i) - at(&y, i)).collect();
        let difference = evaluate(&Op::Sub, &[&x, &y]).unwrap();
        prop_assert_eq!(difference.shape(), shape.as_slice());
        prop_assert_eq!(values(&difference), expected.clone());
        let condition = evaluate(&Op::Greater, &[&x, &y]).unwrap();
        let larger = evaluate(&Op::Where, &[&condition, &x, &y]).unwrap();
        prop_assert_eq!(larger, evaluate(&Op::Max, &[&x, &y]).unwrap());
        let expanded = evaluate(&Op::Expand { shape: shape.clone() }, &[&y]).unwrap();
        prop_assert_eq!(values(&expanded), indices(&shape).iter().map(|i| at(&y, i)).collect::<Vec<_>>());
    }

    #[test]
    fn products_follow_index_loops((a, b) in two_shapes(), n in 0usize..5, k in 0usize..20, m in 0usize..5) {
        let (x, y) = (counting(&[&a[..], &[n, k]].concat(), 5), counting(&[&b[..], &[k, m]].concat(), 3));
        let shape = [&broadcast_shapes(&a, &b).unwrap()[..], &[n, m]].concat();
        // Small integers: exact in f32 whatever the order of summation.
        let product = evaluate(&Op::MatMul, &[&x, &y]).unwrap();
        prop_assert_eq!(product.shape(), shape.as_slice());
        prop_assert_eq!(values(&product), plain_product(&x, &y, &shape));
        let integers = evaluate(&Op::MatMul, &[&x.cast(DType::I64), &y.cast(DType::I64)]).unwrap();
        prop_assert_eq!(integers.cast(DType::F32), product);
    }

    #[test]
    fn movement_follows_index_loops(
        shape in prop::collection::vec(1usize..4, 3),
        perm in Just(vec![0usize, 1, 2]).prop_shuffle(),
        repeats in prop::collection::vec(0usize..3, 3),
        axis in 0usize..3,
    ) {
        let x = counting(&shape, 5);
        let turned = evaluate(&Op::Transpose { perm: perm.clone() }, &[&x]).unwrap();
        let back = |i: &Vec<usize>| (0..3).map(|d| i[perm.iter().position(|&p| p == d).unwrap()]).collect::<Vec<_>>();
        prop_assert_eq!(values(&turned), indices(turned.shape()).iter().map(|i| at(&x, &back(i))).collect::<Vec<_>>());
        let tiled = evaluate(&Op::Tile { repeats }, &[&x]).unwrap();
        let within = |i: &Vec<usize>| i.iter().zip(&shape).map(|(i, d)| i % d).collect::<Vec<_>>();
        prop_assert_eq!(values(&tiled), indices(tiled.shape()).iter().map(|i| at(&x, &within(i))).collect::<Vec<_>>());
        let whole = evaluate(&Op::Concat { axis }, &[&x, &turned, &x]);
        if turned.shape() == shape.as_slice() {
            let (start, end) = (shape[axis] as i64, 2 * shape[axis] as i64);
            let middle = evaluate(&Op::Slice { axis, start, end, step: 1 }, &[&whole.unwrap()]).unwrap();
            prop_assert_eq!(middle, turned);
        }
    }

    #[test]
    fn convolution_follows_index_loops(
        (h, w, kh, kw) in (1usize..5, 1usize..5, 1usize..3, 1usize..3),
        strides in [1usize..3, 1..3],
        pads in [0usize..2, 0..2, 1..3, 1..3],
        dilations in [1usize..3, 1..3],
        group in 1usize..3,
    ) {
        let (x, weight) = (counting(&[2, 2 * group, h, w], 5), counting(&[3 * group, 2, kh, kw], 3));
        let op = Op::Conv { strides, pads, dilations, group };
        let Ok(result) = evaluate(&op, &[&x, &weight]) else {
            prop_assert!(h + pads[0] + pads[2] <= (kh - 1) * dilations[0] || w + pads[1] + pads[3] <= (kw - 1) * dilations[1]);
            return Ok(());
        };
        let expected: Vec<f32> = indices(result.shape()).iter().map(|i| {
            indices(&[2, kh, kw]).iter().map(|t| {
                let row = (i[2] * strides[0] + t[1] * dilations[0]).checked_sub(pads[0]).filter(|&r| r < h);
                let column = (i[3] * strides[1] + t[2] * dilations[1]).checked_sub(pads[1]).filter(|&c| c < w);
                let (Some(row), Some(column)) = (row, column) else { return 0.0 };
                at(&x, &[i[0], i[1] / 3 * 2 + t[0], row, column]) * at(&weight, &[i[1], t[0], t[1], t[2]])
            }).sum()
        }).collect();
        prop_assert_eq!(values(&result), expected);
    }
}
