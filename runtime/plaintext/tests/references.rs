//! Operations in f32 against their definitions in f64, at odd sizes, with masks, infinities and nothing at all; and the
//! bits of their results, which are the same on every machine.

use marill_plaintext::{GeluForm, Op, Tensor, evaluate};
use proptest::prelude::*;

fn f(shape: &[usize], data: Vec<f32>) -> Tensor {
    Tensor::f32(shape, data).unwrap()
}

fn run(op: &Op, args: &[&Tensor]) -> Vec<f32> {
    evaluate(op, args).unwrap().to_f32_vec().unwrap()
}

/// Numbers of mixed sign and size, alike in every run.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|i| next() * [1.0, 0.01, 8.0, 3.0][i % 4]).collect()
}

/// `found` within `relative` of `expected`, and of `scale` where that is larger.
#[track_caller]
fn close(found: &[f32], expected: &[f64], relative: f64, scale: f64) {
    assert_eq!(found.len(), expected.len());
    for (at, (&x, &y)) in found.iter().zip(expected).enumerate() {
        let (x, same) = (f64::from(x), f64::from(x) == y || x.is_nan() && y.is_nan());
        assert!(same || (x - y).abs() <= relative * y.abs().max(scale), "element {at} is {x:e}, not {y:e}");
    }
}

/// Softmax of the scores that are kept, by its definition.
fn softmax(row: &[Option<f64>]) -> Vec<f64> {
    let largest = row.iter().flatten().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = row.iter().flatten().map(|x| (x - largest).exp()).sum();
    row.iter().map(|x| x.map_or(0.0, |x| (x - largest).exp() / sum)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn products(n in 0usize..40, k in 0usize..300, m in 0usize..70, batch in 1usize..4, turn in any::<bool>(), seed in any::<u32>()) {
        let (a, b) = (numbers(batch * n * k, seed), numbers(batch * k * m, !seed));
        let mut expected = Vec::new();
        for at in 0..batch {
            for i in 0..n {
                for j in 0..m {
                    let term = |p: usize| f64::from(a[(at * n + i) * k + p]) * f64::from(b[(at * k + p) * m + j]);
                    expected.push((0..k).map(term).sum::<f64>());
                }
            }
        }
        let (mut a, mut b) = (f(&[batch, n, k], a), f(&[batch, k, m], b));
        if turn {
            // The same matrices, stored the other way round.
            let flip = Op::Transpose { perm: vec![0, 2, 1] };
            let stored = |x: &Tensor| {
                let turned = evaluate(&flip, &[x]).unwrap();
                evaluate(&flip, &[&f(turned.shape(), turned.to_f32_vec().unwrap())]).unwrap()
            };
            (a, b) = (stored(&a), stored(&b));
        }
        close(&run(&Op::MatMul, &[&a, &b]), &expected, 2e-6, 300.0);
    }

    #[test]
    fn rows(rows in 0usize..5, width in 1usize..70, seed in any::<u32>(), far in any::<bool>()) {
        let mut data = numbers(rows * width, seed);
        if far {
            data.iter_mut().for_each(|x| *x += 1000.0);
        }
        let (gain, bias) = (numbers(width, 5), numbers(width, 6));
        let (mut norm, mut root, mut soft) = (Vec::new(), Vec::new(), Vec::new());
        for row in data.chunks(width) {
            let row: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
            let n = width as f64;
            let mean = row.iter().sum::<f64>() / n;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
            let square = row.iter().map(|x| x * x).sum::<f64>() / n;
            for (i, x) in row.iter().enumerate() {
                norm.push((x - mean) / (variance + f64::from(1e-5f32)).sqrt() * f64::from(gain[i]) + f64::from(bias[i]));
                root.push(x / (square + f64::from(1e-6f32)).sqrt() * f64::from(gain[i]));
            }
            soft.extend(softmax(&row.into_iter().map(Some).collect::<Vec<_>>()));
        }
        let shape = [rows, width];
        let (x, gain, bias) = (f(&shape, data), f(&[width], gain), f(&[width], bias));
        close(&run(&Op::LayerNorm { epsilon: 1e-5 }, &[&x, &gain, &bias]), &norm, 3e-7, 8.0);
        close(&run(&Op::RmsNorm { epsilon: 1e-6 }, &[&x, &gain]), &root, 3e-7, 0.0);
        close(&run(&Op::Softmax { axis: 1 }, &[&x]), &soft, 1e-7, 1e-30);
        let turn = Op::Transpose { perm: vec![1, 0] };
        let across = evaluate(&Op::Softmax { axis: 0 }, &[&evaluate(&turn, &[&x]).unwrap()]).unwrap();
        close(&run(&turn, &[&across]), &soft, 1e-7, 1e-30);
    }

    #[test]
    fn masked_rows(heads in 1usize..3, queries in 1usize..5, width in 1usize..40, seed in any::<u32>(), spread in any::<bool>()) {
        let mut scores = numbers(heads * queries * width, seed);
        let keep: Vec<bool> = numbers(queries * width, seed ^ 1).iter().map(|&x| x > -0.1).collect();
        let mut bias = numbers(width, seed ^ 2);
        bias.iter_mut().step_by(3).for_each(|x| *x = f32::MIN);
        let kept = |i: usize, j: usize, bias: f32| keep[if spread { j } else { i * width + j }] && bias > -1e4;
        let mut expected = [Vec::new(), Vec::new()];
        for (row, line) in scores.chunks_mut(width).enumerate() {
            for (with_bias, expected) in expected.iter_mut().enumerate() {
                let added = |j: usize| if with_bias == 1 { bias[j] } else { 0.0 };
                let kept = |j: usize| kept(row % queries, j, added(j));
                let score = |j: usize| f64::from(line[j] + added(j));
                expected.extend(softmax(&(0..width).map(|j| kept(j).then(|| score(j))).collect::<Vec<_>>()));
            }
            // What is left out may be anything.
            for (j, x) in line.iter_mut().enumerate() {
                if !kept(row % queries, j, 0.0) {
                    *x = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][j % 3];
                }
            }
        }
        let scores = f(&[heads, queries, width], scores);
        let keep = if spread {
            Tensor::bool([width], keep[..width].to_vec()).unwrap()
        } else {
            Tensor::bool([1, queries, width], keep).unwrap()
        };
        close(&run(&Op::AttentionSoftmax, &[&scores, &keep]), &expected[0], 1e-7, 1e-30);
        let bias = f(&[width], bias);
        close(&run(&Op::AttentionSoftmax, &[&scores, &keep, &bias]), &expected[1], 1e-7, 1e-30);
    }

    #[test]
    fn functions(count in 0usize..70, seed in any::<u32>(), size in prop::sample::select(vec![1e-6f32, 1.0, 30.0])) {
        let x: Vec<f32> = numbers(count, seed).iter().map(|x| x * size).collect();
        let of = |g: &dyn Fn(f64) -> f64| x.iter().map(|&x| g(f64::from(x))).collect::<Vec<_>>();
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let tensor = f(&[count], x.clone());
        let gelu = |form| Op::Gelu { form };
        let inner = |x: f64| (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
        close(&run(&Op::Exp, &[&tensor]), &of(&|x| f64::from(x.exp() as f32)), 1.2e-7, 1e-38);
        close(&run(&Op::Tanh, &[&tensor]), &of(&f64::tanh), 1e-7, 1e-38);
        close(&run(&Op::Sigmoid, &[&tensor]), &of(&sigmoid), 1e-7, 1e-38);
        close(&run(&Op::Silu, &[&tensor]), &of(&|x| x * sigmoid(x)), 1e-7, 1e-38);
        close(&run(&gelu(GeluForm::Tanh), &[&tensor]), &of(&|x| x * sigmoid(2.0 * inner(x))), 1e-7, 1e-38);
    }
}

#[test]
fn rows_of_infinities_and_of_nothing() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let soft = |row: &[f32]| run(&Op::Softmax { axis: 0 }, &[&f(&[row.len()], row.to_vec())]);
    assert_eq!(soft(&[0.0, -inf, 0.0]), [0.5, 0.0, 0.5]);
    assert_eq!(soft(&[-1e30, 1e30]), [0.0, 1.0]);
    for row in [[0.0, nan, 1.0], [0.0, inf, 1.0], [-inf; 3]] {
        assert!(soft(&row)[1].is_nan(), "{row:?}");
    }
    let keep = |bits: &[bool]| Tensor::bool([bits.len()], bits.to_vec()).unwrap();
    let masked = |row: &[f32], bits: &[bool]| {
        run(&Op::AttentionSoftmax, &[&f(&[row.len()], row.to_vec()), &keep(bits)])
    };
    assert_eq!(masked(&[nan, inf, 3.0], &[false, false, true]), [0.0, 0.0, 1.0]);
    assert_eq!(masked(&[1.0, 2.0], &[false, false]), [0.0, 0.0]);
    let lost = masked(&[nan, 2.0, 5.0], &[true, true, false]);
    assert!(lost[0].is_nan() && lost[1].is_nan() && lost[2] == 0.0);
    for shape in [[0, 3], [3, 0]] {
        let empty = f(&shape, Vec::new());
        let none = Tensor::bool(shape, Vec::new()).unwrap();
        for axis in [0, 1] {
            assert_eq!(evaluate(&Op::Softmax { axis }, &[&empty]).unwrap(), empty);
        }
        assert_eq!(evaluate(&Op::AttentionSoftmax, &[&empty, &none]).unwrap(), empty);
        assert_eq!(evaluate(&Op::LayerNorm { epsilon: 1e-5 }, &[&empty]).unwrap(), empty);
        assert_eq!(evaluate(&Op::Add, &[&empty, &empty]).unwrap(), empty);
        assert_eq!(evaluate(&Op::Gelu { form: GeluForm::Erf }, &[&empty]).unwrap(), empty);
    }
    assert_eq!(run(&Op::MatMul, &[&f(&[2, 0], Vec::new()), &f(&[0, 2], Vec::new())]), [0.0; 4]);
}

/// Both parties compute public values each on their own and encode them: one differing bit would be a wrong result.
/// The number stands for the bits of every operation below; a machine on which it differs must not run Marill.
#[test]
fn bits_are_the_same_on_every_machine() {
    let x = f(&[3, 90, 70], numbers(18_900, 1));
    let y = f(&[3, 70, 110], numbers(23_100, 2));
    let row = f(&[70], numbers(70, 3));
    let keep = evaluate(&Op::Greater, &[&row, &Tensor::scalar_f32(-0.5)]).unwrap();
    let positive = evaluate(&Op::Abs, &[&x]).unwrap();
    let all = Op::ReduceSum { axes: vec![0, 1, 2], keepdims: false };
    let cases: Vec<(Op, Vec<&Tensor>)> = vec![
        (Op::MatMul, vec![&x, &y]),
        (Op::Softmax { axis: 2 }, vec![&x]),
        (Op::Softmax { axis: 1 }, vec![&x]),
        (Op::AttentionSoftmax, vec![&x, &keep, &row]),
        (Op::LayerNorm { epsilon: 1e-5 }, vec![&x, &row, &row]),
        (Op::RmsNorm { epsilon: 1e-5 }, vec![&x, &row]),
        (Op::Gelu { form: GeluForm::Erf }, vec![&x]),
        (Op::Gelu { form: GeluForm::Tanh }, vec![&x]),
        (Op::Silu, vec![&x]),
        (Op::Exp, vec![&x]),
        (Op::Tanh, vec![&x]),
        (Op::Sigmoid, vec![&x]),
        (Op::Erf, vec![&x]),
        (Op::Sin, vec![&x]),
        (Op::Cos, vec![&x]),
        (Op::Log, vec![&positive]),
        (Op::Rsqrt, vec![&positive]),
        (Op::Pow, vec![&positive, &row]),
        (Op::Rotary, vec![&x, &row, &row]),
        (all, vec![&x]),
        (Op::CumSum { axis: 1, exclusive: false, reverse: true }, vec![&x]),
    ];
    let mut digest = 0xcbf2_9ce4_8422_2325u64;
    for (op, args) in &cases {
        for value in run(op, args) {
            for byte in value.to_bits().to_le_bytes() {
                digest = (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
    }
    assert_eq!(digest, 14_444_379_146_580_960_806);
}
