//! Norms, activations and rotary embedding.

use marill_compiler::ir::{Owner, ValueId};
use marill_plaintext::{DType, GeluForm, Op};

use super::spelling::Spelling;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Quotient {
    DivSqrt,
    DivPow,
    MulReciprocal,
    MulOneOver,
    MulRsqrt,
    MulPow,
}

const QUOTIENTS: [Quotient; 6] = [
    Quotient::DivSqrt,
    Quotient::DivPow,
    Quotient::MulReciprocal,
    Quotient::MulOneOver,
    Quotient::MulRsqrt,
    Quotient::MulPow,
];

/// `d / sqrt(mean(d^2) + 1e-5)`.
fn norm_core(s: &mut Spelling, d: ValueId, quotient: Quotient, square_by_mul: bool) -> ValueId {
    let cast = s.op(Op::Cast { to: DType::F32 }, &[d]);
    let square = if square_by_mul { s.op(Op::Mul, &[cast, cast]) } else { s.with(Op::Pow, cast, 2.0) };
    let mean = s.mean(square);
    let variance = s.with(Op::Add, mean, 1e-5);
    match quotient {
        Quotient::DivSqrt => {
            let root = s.op(Op::Sqrt, &[variance]);
            s.op(Op::Div, &[d, root])
        }
        Quotient::DivPow => {
            let root = s.with(Op::Pow, variance, 0.5);
            s.op(Op::Div, &[d, root])
        }
        Quotient::MulReciprocal => {
            let root = s.op(Op::Sqrt, &[variance]);
            let inverse = s.op(Op::Reciprocal, &[root]);
            s.op(Op::Mul, &[d, inverse])
        }
        Quotient::MulOneOver => {
            let root = s.op(Op::Sqrt, &[variance]);
            let one = s.number(1.0);
            let inverse = s.op(Op::Div, &[one, root]);
            s.op(Op::Mul, &[inverse, d])
        }
        Quotient::MulRsqrt => {
            let inverse = s.op(Op::Rsqrt, &[variance]);
            s.op(Op::Mul, &[d, inverse])
        }
        Quotient::MulPow => {
            let inverse = s.with(Op::Pow, variance, -0.5);
            s.op(Op::Mul, &[d, inverse])
        }
    }
}

#[test]
fn layer_norm_in_every_spelling() {
    for quotient in QUOTIENTS {
        for variant in [false, true] {
            let mut s = Spelling::default();
            let x = s.input("x", &[2, 3, 8]);
            let mean = s.mean(x);
            let centred = s.op(Op::Sub, &[x, mean]);
            let again = s.op(Op::Sub, &[x, mean]);
            let core = norm_core(&mut s, if variant { again } else { centred }, quotient, variant);
            let (gain, bias) = (s.weight("gain", &[8]), s.weight("bias", &[8]));
            let scaled = s.op(Op::Mul, &if variant { [gain, core] } else { [core, gain] });
            let out = s.op(Op::Add, &if variant { [bias, scaled] } else { [scaled, bias] });
            let normalised = s.same(out);
            assert_eq!(normalised.operations(), ["layer_norm"], "{quotient:?}");
            if quotient == Quotient::DivSqrt && !variant {
                normalised.snapshot("layer_norm");
            }
        }
    }
}

#[test]
fn rms_norm_in_every_spelling_with_a_gain_of_one_plus_weight() {
    for quotient in QUOTIENTS {
        let mut s = Spelling::default();
        let x = s.input("x", &[2, 3, 8]);
        let core = norm_core(&mut s, x, quotient, false);
        let weight = s.weight("w", &[1, 1, 8]);
        let gain = s.with(Op::Add, weight, 1.0);
        let out = s.op(Op::Mul, &[gain, core]);
        let normalised = s.same(out);
        assert_eq!(normalised.operations(), ["rms_norm"], "{quotient:?}");
        let norm = normalised.the("rms_norm");
        assert_eq!(normalised.0.op(norm), Some(&Op::RmsNorm { epsilon: 1e-5 }));
    }
}

#[test]
fn what_is_almost_a_norm_stays() {
    let mut s = Spelling::default();
    let (x, y) = (s.input("x", &[4, 8]), s.input("y", &[4, 8]));
    let square = s.op(Op::Mul, &[y, y]);
    let mean = s.mean(square);
    let variance = s.with(Op::Add, mean, 1e-5);
    let root = s.op(Op::Sqrt, &[variance]);
    let out = s.op(Op::Div, &[x, root]);
    assert!(!s.same(out).operations().contains(&"rms_norm"));

    let mut s = Spelling::default();
    let x = s.input("x", &[4, 4]);
    let square = s.op(Op::Mul, &[x, x]);
    let mean = s.op(Op::ReduceMean { axes: vec![0], keepdims: true }, &[square]);
    let root = s.op(Op::Sqrt, &[mean]);
    let out = s.op(Op::Div, &[x, root]);
    assert!(!s.same(out).operations().contains(&"rms_norm"));
}

#[test]
fn gelu_with_erf_in_every_spelling() {
    type Spell = fn(&mut Spelling, ValueId, ValueId) -> ValueId;
    let by_quotient: fn(&mut Spelling, ValueId) -> ValueId =
        |s, x| s.with(Op::Div, x, std::f32::consts::SQRT_2);
    let by_product: fn(&mut Spelling, ValueId) -> ValueId =
        |s, x| s.with(Op::Mul, x, std::f32::consts::FRAC_1_SQRT_2);
    let after: Spell = |s, x, bell| {
        let one_plus = s.with(Op::Add, bell, 1.0);
        let product = s.op(Op::Mul, &[x, one_plus]);
        s.with(Op::Mul, product, 0.5)
    };
    let before: Spell = |s, x, bell| {
        let half = s.with(Op::Mul, x, 0.5);
        let one_plus = s.with(Op::Add, bell, 1.0);
        s.op(Op::Mul, &[one_plus, half])
    };
    let inside: Spell = |s, x, bell| {
        let one_plus = s.with(Op::Add, bell, 1.0);
        let half = s.with(Op::Div, one_plus, 2.0);
        s.op(Op::Mul, &[half, x])
    };
    let spread: Spell = |s, x, bell| {
        let half = s.with(Op::Mul, x, 0.5);
        let product = s.op(Op::Mul, &[half, bell]);
        s.op(Op::Add, &[product, half])
    };
    for argument in [by_quotient, by_product] {
        for finish in [after, before, inside, spread] {
            let mut s = Spelling::default();
            let x = s.input("x", &[3, 8]);
            let argument = argument(&mut s, x);
            let bell = s.op(Op::Erf, &[argument]);
            let out = finish(&mut s, x, bell);
            let normalised = s.same(out);
            assert_eq!(normalised.operations(), ["gelu"]);
            let gelu = normalised.the("gelu");
            assert_eq!(normalised.0.op(gelu), Some(&Op::Gelu { form: GeluForm::Erf }));
        }
    }
}

/// `0.5 x (1 + tanh(sqrt(2 / pi) (x + c x^3)))` with the cube in one of several spellings.
fn tanh_gelu(s: &mut Spelling, x: ValueId, cube: usize, c: f32) -> ValueId {
    let root = (2.0 / std::f32::consts::PI).sqrt();
    let argument = match cube {
        0 | 1 => {
            let cubed = if cube == 0 {
                s.with(Op::Pow, x, 3.0)
            } else {
                let square = s.op(Op::Mul, &[x, x]);
                s.op(Op::Mul, &[x, square])
            };
            let scaled = s.with(Op::Mul, cubed, c);
            let sum = s.op(Op::Add, &[x, scaled]);
            s.with(Op::Mul, sum, root)
        }
        2 => {
            let first = s.with(Op::Mul, x, c);
            let second = s.op(Op::Mul, &[first, x]);
            let one_plus = s.with(Op::Add, second, 1.0);
            let scaled = s.with(Op::Mul, x, root);
            s.op(Op::Mul, &[scaled, one_plus])
        }
        _ => {
            let square = s.with(Op::Pow, x, 2.0);
            let product = s.op(Op::Mul, &[square, x]);
            let scaled = s.with(Op::Mul, product, c * root);
            let linear = s.with(Op::Mul, x, root);
            s.op(Op::Add, &[scaled, linear])
        }
    };
    let bell = s.op(Op::Tanh, &[argument]);
    let one_plus = s.with(Op::Add, bell, 1.0);
    let half = s.with(Op::Mul, x, 0.5);
    s.op(Op::Mul, &[half, one_plus])
}

#[test]
fn gelu_with_tanh_in_every_spelling() {
    for cube in 0..4 {
        let mut s = Spelling::default();
        let (x, gate) = (s.input("x", &[3, 8]), s.input("gate", &[3, 8]));
        let shifted = s.with(Op::Mul, x, 3.0);
        let gelu = tanh_gelu(&mut s, shifted, cube, 0.044_715);
        let out = s.op(Op::Mul, &[gelu, gate]);
        let normalised = s.same(out);
        assert_eq!(normalised.operations(), ["gelu", "mul", "mul"], "spelling {cube}");
        if cube == 0 {
            normalised.snapshot("gelu_tanh");
        }
    }
}

#[test]
fn what_is_almost_a_gelu_or_silu_stays() {
    let mut s = Spelling::default();
    let x = s.input("x", &[3, 8]);
    let out = tanh_gelu(&mut s, x, 0, 0.05);
    assert!(s.same(out).operations().contains(&"tanh"));

    let mut s = Spelling::default();
    let (x, y) = (s.input("x", &[8]), s.input("y", &[8]));
    let gate = s.op(Op::Sigmoid, &[y]);
    let out = s.op(Op::Mul, &[x, gate]);
    assert_eq!(s.same(out).operations(), ["mul", "sigmoid"]);
}

#[test]
fn silu_with_operands_either_way() {
    for swapped in [false, true] {
        let mut s = Spelling::default();
        let x = s.input("x", &[8]);
        let gate = s.op(Op::Sigmoid, &[x]);
        let out = s.op(Op::Mul, &if swapped { [gate, x] } else { [x, gate] });
        assert_eq!(s.same(out).operations(), ["silu"]);
    }
}

fn rotary(s: &mut Spelling, x: ValueId, swapped: bool, negate_second: bool) -> ValueId {
    let (cos, sin) = (s.weight("cos", &[1, 1, 5, 8]), s.weight("sin", &[1, 1, 5, 8]));
    let first = s.op(Op::Slice { axis: 3, start: 0, end: 4, step: 1 }, &[x]);
    let second = s.op(Op::Slice { axis: 3, start: 4, end: 8, step: 1 }, &[x]);
    let halves =
        if negate_second { [s.op(Op::Neg, &[second]), first] } else { [second, s.op(Op::Neg, &[first])] };
    let turned = s.op(Op::Concat { axis: 3 }, &halves);
    let straight = s.op(Op::Mul, &if swapped { [cos, x] } else { [x, cos] });
    let turned = s.op(Op::Mul, &if swapped { [sin, turned] } else { [turned, sin] });
    s.op(Op::Add, &if swapped { [turned, straight] } else { [straight, turned] })
}

#[test]
fn rotary_embedding() {
    for swapped in [false, true] {
        let mut s = Spelling::default();
        let x = s.input("x", &[1, 2, 5, 8]);
        let out = rotary(&mut s, x, swapped, true);
        let normalised = s.same(out);
        assert_eq!(normalised.operations(), ["rotary"]);
        if !swapped {
            normalised.snapshot("rotary");
        }
    }
    let mut s = Spelling::default();
    let x = s.input("x", &[1, 2, 5, 8]);
    let out = rotary(&mut s, x, false, false);
    assert!(!s.same(out).operations().contains(&"rotary"), "rotated the other way");
}

#[test]
fn a_row_of_length_one_is_an_rms_norm() {
    for spelled in 0..3 {
        let mut s = Spelling::default();
        let x = s.input("x", &[3, 16]);
        let square = s.op(Op::Mul, &[x, x]);
        let sum = s.op(Op::ReduceSum { axes: vec![1], keepdims: true }, &[square]);
        let mut length = s.op(Op::Sqrt, &[sum]);
        match spelled {
            0 => length = s.op(Op::Clip { min: 1e-12, max: f32::MAX }, &[length]),
            1 => length = s.with(Op::Max, length, 1e-12),
            _ => {}
        }
        let length = s.op(Op::Expand { shape: vec![3, 16] }, &[length]);
        let y = s.op(Op::Div, &[x, length]);
        assert_eq!(s.same(y).operations(), ["mul", "rms_norm"]);
    }
}

#[test]
fn convolutions_become_products_of_their_windows() {
    let conv = |strides, pads, dilations, group| Op::Conv { strides, pads, dilations, group };
    for (op, x, w) in [
        (conv([1, 1], [1, 1, 1, 1], [1, 1], 1), [2, 3, 5, 4], [6, 3, 3, 3]),
        (conv([2, 1], [0, 2, 1, 0], [1, 2], 1), [1, 2, 6, 7], [4, 2, 2, 3]),
        (conv([1, 1], [0, 1, 0, 1], [1, 1], 6), [1, 6, 1, 9], [6, 1, 1, 3]),
        (conv([1, 2], [0, 0, 0, 0], [1, 1], 2), [2, 4, 1, 8], [6, 2, 1, 1]),
    ] {
        let mut s = Spelling::default();
        let (x, w) = (s.input("x", &x), s.weight("w", &w));
        let y = s.op(op, &[x, w]);
        let normalised = s.same(y);
        assert!(!normalised.operations().contains(&"conv"), "{:?}", normalised.operations());
        normalised.the("mat_mul");
        // What windows see beyond the edges is nobody's secret.
        let nodes = normalised.0.dag.node_weights();
        for padding in nodes.filter(|node| node.name == "padding") {
            assert_eq!(padding.facts.owner, Some(Owner::Public));
        }
    }
}
