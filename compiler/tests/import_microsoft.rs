//! Operators that onnxruntime's optimiser writes, against plain loops over their definitions.

use std::slice::from_ref;

use crate::model::Attribute::{Float, Int, Text};
use crate::one_node::{MICROSOFT, assert_close, at, f, i, numbers, one, refusal, run, turned};
use marill_plaintext::Tensor;

/// Standard normal distribution function by Simpson's rule.
fn normal(x: f64) -> f64 {
    let density = |t: f64| (-0.5 * t * t).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let (steps, mut sum) = (400, density(0.0) + density(x));
    let h = x / f64::from(steps);
    for k in 1..steps {
        sum += density(h * f64::from(k)) * if k % 2 == 1 { 4.0 } else { 2.0 };
    }
    0.5 + sum * h / 3.0
}

#[test]
fn activations() {
    let (x, bias) = (numbers(&[2, 5], 1), numbers(&[5], 2));
    let xs: Vec<f64> = (0..10).map(|k| at(&x, &[k / 5, k % 5])).collect();
    let sums: Vec<f64> = (0..10).map(|k| xs[k] + at(&bias, &[k % 5])).collect();
    let map = |values: &[f64], g: &dyn Fn(f64) -> f64| values.iter().map(|&v| g(v)).collect::<Vec<f64>>();
    let erf = |v: f64| v * normal(v);
    let tanh =
        |v: f64| 0.5 * v * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (v + 0.044715 * v * v * v)).tanh());
    let quick = |alpha: f64| move |v: f64| v / (1.0 + (-alpha * v).exp());
    assert_close(&one("Gelu", &[], &[&x]), &[2, 5], &map(&xs, &erf));
    assert_close(&one("BiasGelu", &[], &[&x, &bias]), &[2, 5], &map(&sums, &erf));
    assert_close(&one("FastGelu", &[], &[&x]), &[2, 5], &map(&xs, &tanh));
    assert_close(&one("FastGelu", &[], &[&x, &bias]), &[2, 5], &map(&sums, &tanh));
    assert_close(&one("QuickGelu", &[], &[&x]), &[2, 5], &map(&xs, &quick(1.702)));
    let alpha = [("alpha", Float(-0.5))];
    assert_close(&one("QuickGelu", &alpha, &[&x]), &[2, 5], &map(&xs, &quick(-0.5)));
    assert_eq!(refusal("QuickGelu", &[("alpha", Float(0.0))], &[Some(&x)]).code(), "operator-form");
    assert_eq!(refusal("BiasGelu", &[], &[Some(&x)]).code(), "operator-invalid");
    assert_eq!(refusal("FastGelu", &[], &[Some(&x), Some(&x)]).code(), "operator-invalid");
}

/// `x` normalised with its mean taken off, or not.
fn norm(x: &[f64], gain: &Tensor, bias: Option<&Tensor>, centred: bool, epsilon: f64) -> Vec<f64> {
    let count = x.len() as f64;
    let mean = if centred { x.iter().sum::<f64>() / count } else { 0.0 };
    let variance = x.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / count;
    let spread = (variance + epsilon).sqrt();
    let shift = |k: usize| bias.map_or(0.0, |bias| at(bias, &[k]));
    x.iter().enumerate().map(|(k, v)| (v - mean) / spread * at(gain, &[k]) + shift(k)).collect()
}

#[test]
fn norms_of_sums() {
    let (x, skip, row) = (numbers(&[1, 2, 4], 1), numbers(&[1, 2, 4], 5), numbers(&[2, 4], 7));
    let (gain, beta, bias) = (numbers(&[4], 3), numbers(&[4], 4), numbers(&[4], 6));
    let sums = |skip: &dyn Fn(usize, usize) -> f64, bias: Option<&Tensor>| -> Vec<Vec<f64>> {
        let term = |k| bias.map_or(0.0, |bias| at(bias, &[k]));
        (0..2).map(|r| (0..4).map(|k| at(&x, &[0, r, k]) + skip(r, k) + term(k)).collect()).collect()
    };
    let epsilon = [("epsilon", Float(0.25))];
    let plain = sums(&|r, k| at(&skip, &[0, r, k]), None);
    let shifted = sums(&|r, k| at(&row, &[r, k]), Some(&bias));

    let found = run(
        (MICROSOFT, "SkipLayerNormalization"),
        &epsilon,
        &[Some(&x), Some(&row), Some(&gain), Some(&beta), Some(&bias)],
        &["y", "", "", "sum"],
    )
    .unwrap();
    let expected: Vec<f64> = shifted.iter().flat_map(|r| norm(r, &gain, Some(&beta), true, 0.25)).collect();
    assert_close(&found[0], &[1, 2, 4], &expected);
    assert_close(&found[1], &[1, 2, 4], &shifted.concat());

    let found = one("SkipLayerNormalization", &[], &[&x, &skip, &gain]);
    let expected: Vec<f64> = plain.iter().flat_map(|r| norm(r, &gain, None, true, 1e-12)).collect();
    assert_close(&found, &[1, 2, 4], &expected);

    let found = run(
        (MICROSOFT, "SkipSimplifiedLayerNormalization"),
        &epsilon,
        &[Some(&x), Some(&row), Some(&gain), Some(&bias)],
        &["y", "", "", "sum"],
    )
    .unwrap();
    let expected: Vec<f64> = shifted.iter().flat_map(|r| norm(r, &gain, None, false, 0.25)).collect();
    assert_close(&found[0], &[1, 2, 4], &expected);
    assert_close(&found[1], &[1, 2, 4], &shifted.concat());

    // In ONNX's own domain, as onnxruntime writes it.
    let attributes = [("epsilon", Float(0.25)), ("axis", Int(-1)), ("stash_type", Int(1))];
    let inputs = [Some(&x), Some(&gain)];
    let found = run(("", "SimplifiedLayerNormalization"), &attributes, &inputs, &["y"]).unwrap();
    let rows = sums(&|_, _| 0.0, None);
    let expected: Vec<f64> = rows.iter().flat_map(|r| norm(r, &gain, None, false, 0.25)).collect();
    assert_close(&found[0], &[1, 2, 4], &expected);

    for outputs in [["y", "mean", ""], ["y", "", "deviation"]] {
        let inputs = [Some(&x), Some(&skip), Some(&gain)];
        let error = run((MICROSOFT, "SkipLayerNormalization"), &[], &inputs, &outputs).unwrap_err();
        assert_eq!(error.code(), "operator-form");
    }
    let wide = numbers(&[3, 2, 4], 1);
    let inputs = [Some(&x), Some(&wide), Some(&gain)];
    assert_eq!(refusal("SkipSimplifiedLayerNormalization", &[], &inputs).code(), "operator-invalid");
}

#[test]
fn embeddings_of_words_positions_and_segments() {
    let (words, segments) = (i(&[2, 3], &[4, 0, 1, 2, 3, 4]), i(&[2, 3], &[0, 0, 1, 0, 1, 1]));
    let (positions, ids) = (numbers(&[6, 4], 1), i(&[1, 3], &[5, 0, 2]));
    let (table, kinds) = (numbers(&[5, 4], 2), numbers(&[2, 4], 3));
    let (gain, beta) = (numbers(&[4], 4), numbers(&[4], 5));
    let index = |tensor: &Tensor, b: usize, s: usize| tensor.to_i64_vec().unwrap()[b * 3 + s] as usize;
    let sums = |position: &dyn Fn(usize) -> usize, segmented: bool| -> Vec<Vec<f64>> {
        let one = |b: usize, s: usize, k: usize| {
            let kind = if segmented { at(&kinds, &[index(&segments, b, s), k]) } else { 0.0 };
            at(&table, &[index(&words, b, s), k]) + at(&positions, &[position(s), k]) + kind
        };
        (0..6).map(|row| (0..4).map(|k| one(row / 3, row % 3, k)).collect()).collect()
    };
    let norms = |rows: &[Vec<f64>]| -> Vec<f64> {
        rows.iter().flat_map(|row| norm(row, &gain, Some(&beta), true, 0.5)).collect()
    };
    let name = (MICROSOFT, "EmbedLayerNormalization");
    let epsilon = [("epsilon", Float(0.5))];
    let all = [&words, &segments, &table, &positions, &kinds, &gain, &beta].map(Some);
    let found = run(name, &epsilon, &all, &["y", "", "sum"]).unwrap();
    let expected = sums(&|s| s, true);
    assert_close(&found[0], &[2, 3, 4], &norms(&expected));
    assert_close(&found[1], &[2, 3, 4], &expected.concat());

    let mut some = all.to_vec();
    (some[1], some[4]) = (None, None);
    some.extend([None, Some(&ids)]);
    let found = run(name, &epsilon, &some, &["y"]).unwrap();
    assert_close(&found[0], &[2, 3, 4], &norms(&sums(&|s| [5, 0, 2][s], false)));

    assert_eq!(run(name, &[], &all, &["y", "mask"]).unwrap_err().code(), "operator-form");
    let mask = i(&[2, 3], &[1, 1, 0, 1, 1, 1]);
    let found = run(name, &[], &[&all[..], &[Some(&mask)]].concat(), &["y", "lengths"]).unwrap();
    assert_eq!(found[1], i(&[2], &[2, 3]));
    let mut alone = all;
    alone[4] = None;
    assert_eq!(run(name, &[], &alone, &["y"]).unwrap_err().code(), "operator-invalid");
}

#[test]
fn products_with_factors_turned() {
    let (a, b) = (numbers(&[2, 3, 2], 1), numbers(&[4, 3], 2));
    let flags = [("transA", Int(1)), ("transB", Int(1)), ("alpha", Float(0.5))];
    let mut expected = Vec::new();
    for n in 0..2 {
        for r in 0..2 {
            for c in 0..4 {
                expected.push((0..3).map(|k| at(&a, &[n, k, r]) * at(&b, &[c, k])).sum::<f64>() * 0.5);
            }
        }
    }
    assert_close(&one("FusedMatMul", &flags, &[&a, &b]), &[2, 2, 4], &expected);
    let (v, m) = (numbers(&[3], 1), numbers(&[3, 1], 2));
    let product = (0..3).map(|k| at(&v, &[k]) * at(&m, &[k, 0])).sum::<f64>();
    assert_close(&one("FusedMatMul", &[("transA", Int(1))], &[&v, &m]), &[1], &[product]);
    // With an activation behind.
    let (m, w, c) = (numbers(&[2, 3], 1), numbers(&[2, 3], 2), numbers(&[2], 3));
    let linear = |k: usize| {
        let product: f64 = (0..3).map(|j| at(&m, &[k / 2, j]) * at(&w, &[k % 2, j])).sum();
        0.5 * product + at(&c, &[k % 2])
    };
    let relu = |v: f64| v.max(0.0);
    let sigmoid = |v: f64| 1.0 / (1.0 + (-v).exp());
    let cases: [(&'static str, &dyn Fn(f64) -> f64); 4] =
        [("Relu", &relu), ("Tanh", &f64::tanh), ("Sigmoid", &sigmoid), ("", &|v| v)];
    for (name, g) in cases {
        let attributes = [("transB", Int(1)), ("alpha", Float(0.5)), ("activation", Text(name))];
        let expected: Vec<f64> = (0..4).map(|k| g(linear(k))).collect();
        assert_close(&one("FusedGemm", &attributes, &[&m, &w, &c]), &[2, 2], &expected);
    }
    let leaky = [("transB", Int(1)), ("activation", Text("LeakyRelu"))];
    assert_eq!(refusal("FusedGemm", &leaky, &[Some(&m), Some(&w)]).code(), "operator-form");

    let batch = [("transBatchA", Int(1))];
    assert_eq!(refusal("FusedMatMul", &batch, &[Some(&a), Some(&b)]).code(), "operator-form");
}

#[test]
fn rotary_embeddings() {
    let (batch, length, heads, width) = (2, 3, 2, 4);
    let tables = [numbers(&[7, 2], 1), numbers(&[7, 2], 2)];
    let narrow = [numbers(&[7, 1], 3), numbers(&[7, 1], 4)];
    let flat = numbers(&[batch, length, heads * width], 5);
    let x = |b, s, h, d| at(&flat, &[b, s, h * width + d]);
    let positions = i(&[2, 3], &[0, 6, 2, 5, 1, 3]);
    let chosen = |b: usize, s: usize| [[0, 6, 2], [5, 1, 3]][b][s];
    let dims = [batch, length, heads, width];
    for interleaved in [false, true] {
        let flag = ("interleaved", Int(interleaved.into()));
        let given = from_ref(&flag);
        // Three axes; the width of a head is that of the tables.
        let expected = turned(&x, dims, [&tables[0], &tables[1]], &chosen, interleaved);
        let found = one("RotaryEmbedding", given, &[&flat, &positions, &tables[0], &tables[1]]);
        assert_close(&found, flat.shape(), &expected);
        // ONNX's own operator on the same.
        let own = [flag.clone(), ("num_heads", Int(2))];
        let inputs = [Some(&flat), Some(&tables[0]), Some(&tables[1]), Some(&positions)];
        let found = run(("", "RotaryEmbedding"), &own, &inputs, &["y"]).unwrap();
        assert_close(&found[0], flat.shape(), &expected);
        // The position of the first; a part of each head.
        let expected = turned(&x, dims, [&narrow[0], &narrow[1]], &|_, s| 4 + s, interleaved);
        let part = [flag.clone(), ("num_heads", Int(2)), ("rotary_embedding_dim", Int(2))];
        let found = one("RotaryEmbedding", &part, &[&flat, &i(&[1], &[4]), &narrow[0], &narrow[1]]);
        assert_close(&found, flat.shape(), &expected);
        // Four axes, heads before steps.
        let apart = numbers(&[batch, heads, length, width], 6);
        let y = |b, s, h, d| at(&apart, &[b, h, s, d]);
        let by_steps = turned(&y, dims, [&tables[0], &tables[1]], &chosen, interleaved);
        let by_steps = f(&[batch, length, heads, width], &by_steps);
        let mut expected = Vec::new();
        for b in 0..batch {
            for h in 0..heads {
                for s in 0..length {
                    expected.extend((0..width).map(|d| at(&by_steps, &[b, s, h, d])));
                }
            }
        }
        let found = one("RotaryEmbedding", given, &[&apart, &positions, &tables[0], &tables[1]]);
        assert_close(&found, apart.shape(), &expected);
        // Rows that are looked up already.
        let rows = |table: &Tensor| {
            let row = |k: usize| (0..2).map(move |d| (k, d));
            let all = (0..2).flat_map(|b| (0..3).flat_map(move |s| row(chosen(b, s))));
            f(&[2, 3, 2], &all.map(|(k, d)| at(table, &[k, d])).collect::<Vec<f64>>())
        };
        let inputs = [Some(&apart), Some(&rows(&tables[0])), Some(&rows(&tables[1]))].map(|x| x.cloned());
        let inputs: Vec<Option<&Tensor>> = inputs.iter().map(Option::as_ref).collect();
        let found = run(("", "RotaryEmbedding"), given, &inputs, &["y"]).unwrap();
        assert_close(&found[0], apart.shape(), &expected);
    }
    let inputs = [Some(&flat), Some(&positions), Some(&tables[0]), Some(&tables[1])];
    for (attribute, code) in [
        (("scale", Float(2.0)), "operator-form"),
        (("is_packed_batching", Int(1)), "operator-form"),
        (("num_heads", Int(3)), "operator-invalid"),
        (("num_heads", Int(-1)), "operator-invalid"),
        (("rotary_embedding_dim", Int(6)), "operator-invalid"),
    ] {
        assert_eq!(refusal("RotaryEmbedding", from_ref(&attribute), &inputs).code(), code, "{attribute:?}");
    }
    let short = i(&[2], &[0, 1]);
    let inputs = [Some(&flat), Some(&short), Some(&tables[0]), Some(&tables[1])];
    assert_eq!(refusal("RotaryEmbedding", &[], &inputs).code(), "operator-invalid");
}
