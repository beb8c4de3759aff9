//! Attention as onnxruntime's optimiser and its generators write it, against plain loops.

use std::slice::from_ref;

use crate::model::Attribute;
use crate::model::Attribute::{Float, Int, Ints};
use crate::one_node::{MICROSOFT, assert_close, at, f, i, numbers, one, refusal, run, run_knowing, turned};
use marill_plaintext::Tensor;

type Reader<'t> = &'t dyn Fn(usize, usize, usize, usize) -> f64;

/// Attention by loops: readers take batch, head, step and element; `score` changes a score, or forbids the position.
fn attended(
    [batch, heads, length, total, width, value_width]: [usize; 6],
    [query, key, value]: [Reader; 3],
    scale: f64,
    score: &dyn Fn(usize, usize, usize, usize, f64) -> Option<f64>,
) -> Vec<f64> {
    let mut result = vec![0.0; batch * length * heads * value_width];
    for b in 0..batch {
        for h in 0..heads {
            for i in 0..length {
                let raw =
                    |j: usize| (0..width).map(|d| query(b, h, i, d) * key(b, h, j, d)).sum::<f64>() * scale;
                let weights: Vec<f64> =
                    (0..total).map(|j| score(b, h, i, j, raw(j)).map_or(0.0, f64::exp)).collect();
                let sum: f64 = weights.iter().sum();
                for d in 0..value_width {
                    let mixed: f64 = (0..total).map(|j| weights[j] / sum * value(b, h, j, d)).sum();
                    result[((b * length + i) * heads + h) * value_width + d] = mixed;
                }
            }
        }
    }
    result
}

#[test]
fn attention_with_packed_weights() {
    let (batch, length, hidden, heads) = (2, 3, 5, 2);
    let x = numbers(&[batch, length, hidden], 1);
    let weights = numbers(&[hidden, 14], 2);
    let bias = numbers(&[14], 3);
    // Query and key are 4 wide, value 6.
    let projected = |b: usize, s: usize, column: usize| {
        let sum: f64 = (0..hidden).map(|k| at(&x, &[b, s, k]) * at(&weights, &[k, column])).sum();
        sum + at(&bias, &[column])
    };
    let query = |b, h, s, d| projected(b, s, h * 2 + d);
    let key = |b, h, s, d| projected(b, s, 4 + h * 2 + d);
    let value = |b, h, s, d| projected(b, s, 8 + h * 3 + d);
    let dims = [batch, heads, length, length, 2, 3];
    let readers: [Reader; 3] = [&query, &key, &value];
    let sizes = [("num_heads", Int(2)), ("qkv_hidden_sizes", Ints(vec![4, 4, 6]))];
    let rule = 1.0 / 2f64.sqrt();

    let found = one("Attention", &sizes, &[&x, &weights, &bias]);
    let expected = attended(dims, readers, rule, &|_, _, _, _, score| Some(score));
    assert_close(&found, &[2, 3, 6], &expected);

    // Causal, with a mask per key, something added per head, and a scale of its own.
    let mask = i(&[2, 3], &[1, 0, 1, 1, 1, 1]);
    let added = numbers(&[1, 2, 3, 3], 4);
    let attributes = [&sizes[..], &[("unidirectional", Int(1)), ("scale", Float(0.25))]].concat();
    let inputs = [Some(&x), Some(&weights), Some(&bias), Some(&mask), None, Some(&added)];
    let found = run((MICROSOFT, "Attention"), &attributes, &inputs, &["y"]).unwrap();
    let expected = attended(dims, readers, 0.25, &|b, h, i, j, score| {
        (j <= i && at_mask(&mask, &[b, j])).then(|| score + at(&added, &[0, h, i, j]))
    });
    assert_close(&found[0], &[2, 3, 6], &expected);

    // A mask per query and key.
    let mask = i(&[2, 3, 3], &[1, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1, 1, 0, 1, 0, 1, 0, 1]);
    let inputs = [Some(&x), Some(&weights), Some(&bias), Some(&mask)];
    let found = run((MICROSOFT, "Attention"), &sizes, &inputs, &["y"]).unwrap();
    let expected =
        attended(dims, readers, rule, &|b, _, i, j, score| at_mask(&mask, &[b, i, j]).then_some(score));
    assert_close(&found[0], &[2, 3, 6], &expected);

    // A length per batch.
    let lengths = i(&[2], &[3, 1]);
    let inputs = [Some(&x), Some(&weights), Some(&bias), Some(&lengths)];
    let found = run((MICROSOFT, "Attention"), &sizes, &inputs, &["y"]).unwrap();
    let expected = attended(dims, readers, rule, &|b, _, _, j, score| (j < [3, 1][b]).then_some(score));
    assert_close(&found[0], &[2, 3, 6], &expected);

    // Without sizes, three alike; without a bias.
    let square = numbers(&[hidden, 6], 5);
    let found = one("Attention", &[("num_heads", Int(1))], &[&x, &square]);
    let column = |b: usize, s: usize, c: usize| -> f64 {
        (0..hidden).map(|k| at(&x, &[b, s, k]) * at(&square, &[k, c])).sum()
    };
    let readers: [Reader; 3] =
        [&|b, _, s, d| column(b, s, d), &|b, _, s, d| column(b, s, 2 + d), &|b, _, s, d| column(b, s, 4 + d)];
    let expected = attended([2, 1, 3, 3, 2, 2], readers, rule, &|_, _, _, _, score| Some(score));
    assert_close(&found, &[2, 3, 2], &expected);
}

fn at_mask(mask: &Tensor, index: &[usize]) -> bool {
    let flat = index.iter().zip(mask.shape()).fold(0, |flat, (&i, &length)| flat * length + i);
    mask.to_i64_vec().unwrap()[flat] != 0
}

#[test]
fn attention_of_projections() {
    let (batch, heads, length, total) = (2, 2, 3, 4);
    let (q, k, v) = (numbers(&[2, 3, 4], 1), numbers(&[2, 4, 4], 2), numbers(&[2, 4, 6], 3));
    let bias = numbers(&[14], 4);
    let heads_attribute = ("num_heads", Int(2));
    let number = from_ref(&heads_attribute);
    let query = |b, h, s, d| at(&q, &[b, s, h * 2 + d]);
    let key = |b, h, s, d| at(&k, &[b, s, h * 2 + d]);
    let value = |b, h, s, d| at(&v, &[b, s, h * 3 + d]);
    let dims = [batch, heads, length, total, 2, 3];
    let rule = 1.0 / 2f64.sqrt();

    let found = one("MultiHeadAttention", number, &[&q, &k, &v]);
    let expected = attended(dims, [&query, &key, &value], rule, &|_, _, _, _, score| Some(score));
    assert_close(&found, &[2, 3, 6], &expected);

    // A bias on each, a mask per key, something added.
    let biased: [Reader; 3] = [
        &|b, h, s, d| query(b, h, s, d) + at(&bias, &[h * 2 + d]),
        &|b, h, s, d| key(b, h, s, d) + at(&bias, &[4 + h * 2 + d]),
        &|b, h, s, d| value(b, h, s, d) + at(&bias, &[8 + h * 3 + d]),
    ];
    let mask = i(&[2, 4], &[1, 1, 0, 1, 0, 1, 1, 1]);
    let added = numbers(&[2, 1, 3, 4], 5);
    let inputs = [Some(&q), Some(&k), Some(&v), Some(&bias), Some(&mask), Some(&added)];
    let found = run((MICROSOFT, "MultiHeadAttention"), number, &inputs, &["y"]).unwrap();
    let expected = attended(dims, biased, rule, &|b, _, i, j, score| {
        at_mask(&mask, &[b, j]).then(|| score + at(&added, &[b, 0, i, j]))
    });
    assert_close(&found[0], &[2, 3, 6], &expected);

    // Heads that are apart already.
    let (k4, v4) = (numbers(&[2, 2, 4, 2], 6), numbers(&[2, 2, 4, 3], 7));
    let found = one("MultiHeadAttention", number, &[&q, &k4, &v4]);
    let readers: [Reader; 3] =
        [&query, &|b, h, s, d| at(&k4, &[b, h, s, d]), &|b, h, s, d| at(&v4, &[b, h, s, d])];
    let expected = attended(dims, readers, rule, &|_, _, _, _, score| Some(score));
    assert_close(&found, &[2, 3, 6], &expected);

    // Key and value, and all three, behind the heads' axis; causal.
    let pair = numbers(&[2, 3, 2, 2, 2], 8);
    let causal = [heads_attribute.clone(), ("unidirectional", Int(1))];
    let found = one("MultiHeadAttention", &causal, &[&q, &pair]);
    let readers: [Reader; 3] =
        [&query, &|b, h, s, d| at(&pair, &[b, s, h, 0, d]), &|b, h, s, d| at(&pair, &[b, s, h, 1, d])];
    let expected =
        attended([2, 2, 3, 3, 2, 2], readers, rule, &|_, _, i, j, score| (j <= i).then_some(score));
    assert_close(&found, &[2, 3, 4], &expected);

    let all = numbers(&[2, 3, 2, 3, 2], 9);
    let found = one("MultiHeadAttention", number, &[&all]);
    let part = |p: usize| move |b, h, s, d| at(&numbers(&[2, 3, 2, 3, 2], 9), &[b, s, h, p, d]);
    let (first, second, third) = (part(0), part(1), part(2));
    let expected =
        attended([2, 2, 3, 3, 2, 2], [&first, &second, &third], rule, &|_, _, _, _, score| Some(score));
    assert_close(&found, &[2, 3, 4], &expected);
}

/// Attributes, inputs and the code of the refusal.
type Refused<'t> = (Vec<(&'static str, Attribute)>, Vec<Option<&'t Tensor>>, &'static str);

#[test]
fn what_attention_does_not_say_is_refused() {
    let (x, weights, past) = (numbers(&[2, 3, 4], 1), numbers(&[4, 12], 2), numbers(&[2, 2, 2, 1, 2], 3));
    let (lengths, square) = (i(&[4], &[3, 2, 0, 0]), i(&[2, 1, 3, 3], &[1; 18]));
    let number = ("num_heads", Int(2));
    let with = |attribute: (&'static str, Attribute)| vec![number.clone(), attribute];
    let just = vec![number.clone()];
    let (x, weights, past) = (Some(&x), Some(&weights), Some(&past));
    let cases: Vec<Refused> = vec![
        (just.clone(), vec![x, weights, None, None, weights], "operator-invalid"),
        (just.clone(), vec![x, weights, None, None, None, None, past], "operator-form"),
        (just.clone(), vec![x, weights, None, Some(&lengths)], "operator-form"),
        (just.clone(), vec![x, weights, None, Some(&square)], "operator-form"),
        (with(("do_rotary", Int(1))), vec![x, weights], "operator-form"),
        (vec![], vec![x, weights], "operator-invalid"),
        (vec![("num_heads", Int(3))], vec![x, weights], "operator-invalid"),
        (vec![("num_heads", Int(i64::MIN))], vec![x, weights], "operator-invalid"),
        (with(("qkv_hidden_sizes", Ints(vec![4, 4, 5]))), vec![x, weights], "operator-invalid"),
        (with(("qkv_hidden_sizes", Ints(vec![i64::MAX; 3]))), vec![x, weights], "operator-invalid"),
        (with(("qkv_hidden_sizes", Ints(vec![12]))), vec![x, weights], "operator-invalid"),
        (just.clone(), vec![x], "operator-invalid"),
        (just.clone(), vec![x, x], "operator-invalid"),
    ];
    for (attributes, inputs, code) in cases {
        let error = refusal("Attention", &attributes, &inputs);
        assert_eq!(error.code(), code, "{attributes:?}: {error}");
    }
    let mask = i(&[2, 3], &[1; 6]);
    let soft = with(("mask_filter_value", Float(-1.0)));
    assert_eq!(refusal("Attention", &soft, &[x, weights, None, Some(&mask)]).code(), "operator-form");

    let (longer, packed) = (numbers(&[2, 5, 4], 4), numbers(&[2, 3, 2, 3, 2], 5));
    let (bias, longer, packed) = (numbers(&[12], 6), Some(&longer), Some(&packed));
    let bias = Some(&bias);
    let cases: Vec<Refused> = vec![
        (with(("unidirectional", Int(1))), vec![x, longer, longer], "operator-form"),
        (just.clone(), vec![packed, None, None, bias], "operator-form"),
        (vec![("num_heads", Int(3))], vec![packed], "operator-invalid"),
        (just.clone(), vec![x, x, x, weights], "operator-invalid"),
        (just.clone(), vec![x, x, longer], "operator-invalid"),
        (just.clone(), vec![x, x], "operator-invalid"),
        (just.clone(), vec![x], "operator-invalid"),
        (just.clone(), vec![x, x, x, None, Some(&lengths)], "operator-form"),
        (just.clone(), vec![x, x, x, None, None, None, past], "operator-invalid"),
        (just.clone(), vec![x, x, x, None, None, None, None, None, Some(&lengths)], "operator-form"),
        (vec![], vec![x, x, x], "operator-invalid"),
    ];
    for (attributes, inputs, code) in cases {
        let error = refusal("MultiHeadAttention", &attributes, &inputs);
        assert_eq!(error.code(), code, "{attributes:?} {}: {error}", inputs.len());
    }
}

/// `past [batch, heads, length, width]` and `now` behind it.
fn behind(past: &Tensor, now: Reader, [batch, heads, length, width]: [usize; 4]) -> Tensor {
    let before = past.shape()[2];
    let mut data = Vec::new();
    for b in 0..batch {
        for h in 0..heads {
            for s in 0..before + length {
                let element = |d| if s < before { at(past, &[b, h, s, d]) } else { now(b, h, s - before, d) };
                data.extend((0..width).map(element));
            }
        }
    }
    f(&[batch, heads, before + length, width], &data)
}

fn same(found: &Tensor, expected: &Tensor) {
    let expected: Vec<f64> = expected.to_f32_vec().unwrap().into_iter().map(f64::from).collect();
    assert_close(found, found.shape(), &expected);
}

#[test]
fn a_past_stands_before_keys_and_values() {
    let (q, k, v) = (numbers(&[2, 2, 4], 1), numbers(&[2, 2, 4], 2), numbers(&[2, 2, 6], 3));
    let (old_key, old_value) = (numbers(&[2, 2, 3, 2], 4), numbers(&[2, 2, 3, 3], 5));
    let query = |b, h, s, d| at(&q, &[b, s, h * 2 + d]);
    let keys = behind(&old_key, &|b, h, s, d| at(&k, &[b, s, h * 2 + d]), [2, 2, 2, 2]);
    let values = behind(&old_value, &|b, h, s, d| at(&v, &[b, s, h * 3 + d]), [2, 2, 2, 3]);
    let readers: [Reader; 3] =
        [&query, &|b, h, s, d| at(&keys, &[b, h, s, d]), &|b, h, s, d| at(&values, &[b, h, s, d])];
    let mask = i(&[2, 5], &[0, 1, 1, 1, 1, 1, 1, 0, 1, 1]);
    let expected = attended([2, 2, 2, 5, 2, 3], readers, 0.5f64.sqrt(), &|b, _, i, j, score| {
        (j <= i + 3 && at_mask(&mask, &[b, j])).then_some(score)
    });
    let causal = [("num_heads", Int(2)), ("unidirectional", Int(1))];
    let inputs = [Some(&q), Some(&k), Some(&v), None, Some(&mask), None, Some(&old_key), Some(&old_value)];
    let found = run((MICROSOFT, "MultiHeadAttention"), &causal, &inputs, &["y", "key", "value"]).unwrap();
    assert_close(&found[0], &[2, 2, 6], &expected);
    same(&found[1], &keys);
    same(&found[2], &values);

    // Keys and values in one tensor, projections in one product.
    let (x, weights, past) = (numbers(&[2, 2, 5], 6), numbers(&[5, 12], 7), numbers(&[2, 2, 2, 3, 2], 8));
    let column = |b: usize, s: usize, c: usize| -> f64 {
        (0..5).map(|k| at(&x, &[b, s, k]) * at(&weights, &[k, c])).sum()
    };
    let half = |which: usize| {
        let elements = past.to_f32_vec().unwrap();
        let part = &elements[which * 24..(which + 1) * 24];
        let old = Tensor::f32([2, 2, 3, 2], part.to_vec()).unwrap();
        behind(&old, &|b, h, s, d| column(b, s, 4 + 4 * which + h * 2 + d), [2, 2, 2, 2])
    };
    let (keys, values) = (half(0), half(1));
    let readers: [Reader; 3] =
        [&|b, h, s, d| column(b, s, h * 2 + d), &|b, h, s, d| at(&keys, &[b, h, s, d]), &|b, h, s, d| {
            at(&values, &[b, h, s, d])
        }];
    let expected = attended([2, 2, 2, 5, 2, 2], readers, 0.5f64.sqrt(), &|_, _, i, j, score| {
        (j <= i + 3).then_some(score)
    });
    let inputs = [Some(&x), Some(&weights), None, None, Some(&past)];
    let found = run((MICROSOFT, "Attention"), &causal, &inputs, &["y", "present"]).unwrap();
    assert_close(&found[0], &[2, 2, 4], &expected);
    assert_eq!(found[1].shape(), [2, 2, 2, 5, 2]);
    let both = [keys, values].map(|half| half.to_f32_vec().unwrap()).concat();
    same(&found[1], &Tensor::f32([2, 2, 2, 5, 2], both).unwrap());
}

/// Four query heads of six elements on two heads of keys and values.
const GROUPED: [(&str, Attribute); 2] = [("num_heads", Int(4)), ("kv_num_heads", Int(2))];

#[test]
fn query_heads_share_keys_and_values() {
    let (q, k, v) = (numbers(&[2, 3, 24], 1), numbers(&[2, 3, 12], 2), numbers(&[2, 3, 12], 3));
    let (old_key, old_value) = (numbers(&[2, 2, 2, 6], 4), numbers(&[2, 2, 2, 6], 5));
    let tables = [numbers(&[7, 2], 6), numbers(&[7, 2], 7)];
    let query = |b: usize, h: usize, s: usize, d: usize| at(&q, &[b, s, h * 6 + d]);
    let key = |b: usize, h: usize, s: usize, d: usize| at(&k, &[b, s, h * 6 + d]);
    let value = |b: usize, h: usize, s: usize, d: usize| at(&v, &[b, s, h * 6 + d]);
    let rule = 1.0 / 6f64.sqrt();
    let name = (MICROSOFT, "GroupQueryAttention");
    let (lengths, now) = (i(&[2], &[2, 2]), i(&[], &[3]));

    // Neither a past nor positions; padding behind the first two of the second batch.
    let padded = i(&[2, 1], &[2, 1]);
    let inputs = [Some(&q), Some(&k), Some(&v), None, None, Some(&padded), Some(&now)];
    let found = run_knowing(&[6], name, &GROUPED, &inputs, &["y", "key", "value"]).unwrap();
    let readers: [Reader; 3] =
        [&query, &|b, h, s, d| key(b, h / 2, s, d), &|b, h, s, d| value(b, h / 2, s, d)];
    let dims = [2, 4, 3, 3, 6, 6];
    let expected =
        attended(dims, readers, rule, &|b, _, i, j, score| (j <= i && j < [3, 2][b]).then_some(score));
    assert_close(&found[0], &[2, 3, 24], &expected);
    same(&found[1], &behind(&numbers(&[2, 2, 0, 6], 0), &key, [2, 2, 3, 6]));

    // Side by side, in a window of two, capped, with something added.
    let mut side_by_side = Vec::new();
    for row in 0..6 {
        for (part, width) in [(&q, 24), (&k, 12), (&v, 12)] {
            side_by_side.extend_from_slice(&part.to_f32_vec().unwrap()[row * width..(row + 1) * width]);
        }
    }
    let packed = Tensor::f32([2, 3, 48], side_by_side).unwrap();
    let added = numbers(&[2, 1, 3, 3], 8);
    let mut inputs = vec![Some(&packed), None, None, None, None, Some(&lengths), Some(&now)];
    inputs.extend([None, None, None, Some(&added)]);
    let attributes = [&GROUPED[..], &[("local_window_size", Int(2)), ("softcap", Float(0.5))]].concat();
    let found = run_knowing(&[5, 6], name, &attributes, &inputs, &["y"]).unwrap();
    let expected = attended(dims, readers, rule, &|b, _, i, j, score| {
        (j <= i && j + 2 > i).then(|| 0.5 * (score / 0.5).tanh() + at(&added, &[b, 0, i, j]))
    });
    assert_close(&found[0], &[2, 3, 24], &expected);

    // After two others, a part of each head turned by its position.
    let total = i(&[], &[5]);
    let full = i(&[2], &[4, 4]);
    for interleaved in [false, true] {
        let turn = |x: Reader, heads: usize| {
            let by_steps = |b, s, h, d| x(b, h, s, d);
            let all =
                turned(&by_steps, [2, 3, heads, 6], [&tables[0], &tables[1]], &|_, s| s + 2, interleaved);
            f(&[2, 3, heads, 6], &all)
        };
        let (query, key) = (turn(&query, 4), turn(&key, 2));
        let keys = behind(&old_key, &|b, h, s, d| at(&key, &[b, s, h, d]), [2, 2, 3, 6]);
        let values = behind(&old_value, &value, [2, 2, 3, 6]);
        let readers: [Reader; 3] = [
            &|b, h, s, d| at(&query, &[b, s, h, d]),
            &|b, h, s, d| at(&keys, &[b, h / 2, s, d]),
            &|b, h, s, d| at(&values, &[b, h / 2, s, d]),
        ];
        let expected =
            attended([2, 4, 3, 5, 6, 6], readers, rule, &|_, _, i, j, score| (j <= i + 2).then_some(score));
        let mut inputs = vec![Some(&q), Some(&k), Some(&v), Some(&old_key), Some(&old_value), Some(&full)];
        inputs.extend([Some(&total), Some(&tables[0]), Some(&tables[1])]);
        let rotary = [("do_rotary", Int(1)), ("rotary_interleaved", Int(interleaved.into()))];
        let attributes = [&GROUPED[..], &rotary].concat();
        let found = run_knowing(&[5, 6], name, &attributes, &inputs, &["y", "key", "value"]).unwrap();
        assert_close(&found[0], &[2, 3, 24], &expected);
        same(&found[1], &keys);
        same(&found[2], &values);
    }
}

#[test]
fn what_grouped_attention_does_not_say_is_refused() {
    let (q, k, v) = (numbers(&[1, 3, 24], 1), numbers(&[1, 3, 12], 2), numbers(&[1, 3, 12], 3));
    let (past, table) = (numbers(&[1, 2, 2, 6], 4), numbers(&[4, 3], 5));
    let (lengths, short, now, later) = (i(&[1], &[2]), i(&[1], &[1]), i(&[], &[3]), i(&[], &[5]));
    let (q, k, v, past, table) = (Some(&q), Some(&k), Some(&v), Some(&past), Some(&table));
    let (lengths, short, now, later) = (Some(&lengths), Some(&short), Some(&now), Some(&later));
    let plain = GROUPED.to_vec();
    let with = |attribute: (&'static str, Attribute)| [&GROUPED[..], &[attribute]].concat();
    let hostile = vec![("num_heads", Int(i64::MAX)), ("kv_num_heads", Int(i64::MAX))];
    let rotary = with(("do_rotary", Int(1)));
    let cases: Vec<Refused> = vec![
        (plain.clone(), vec![q, k, v, None, None, lengths, later], "operator-form"),
        (plain.clone(), vec![q, k, v, past, None, lengths, later], "operator-invalid"),
        (plain.clone(), vec![q, k, v, past, past, short, later], "operator-form"),
        (plain.clone(), vec![q, k, None, None, None, lengths, now], "operator-invalid"),
        (plain.clone(), vec![q, None, None, None, None, lengths], "operator-invalid"),
        (plain.clone(), vec![q, k, v, None, None, lengths, now, None, None, lengths], "operator-form"),
        (with(("smooth_softmax", Int(1))), vec![q, k, v, None, None, lengths, now], "operator-form"),
        (rotary.clone(), vec![q, k, v, None, None, lengths, now], "operator-invalid"),
        (rotary, vec![q, k, v, past, past, short, later, table, table], "operator-invalid"),
        (hostile, vec![q, None, None, None, None, lengths, now], "operator-invalid"),
        (vec![], vec![q, k, v, None, None, lengths, now], "operator-invalid"),
    ];
    for (attributes, inputs, code) in cases {
        let name = (MICROSOFT, "GroupQueryAttention");
        let error = run_knowing(&[5, 6], name, &attributes, &inputs, &["y"]).unwrap_err();
        assert_eq!(error.code(), code, "{attributes:?} {}: {error}", inputs.len());
    }
    // Lengths that only the parties will know, behind a past.
    let inputs = [q, k, v, past, past, lengths, later];
    let error = run_knowing(&[6], (MICROSOFT, "GroupQueryAttention"), &plain, &inputs, &["y"]).unwrap_err();
    assert_eq!(error.code(), "operator-form");
    let error = refusal("GroupQueryAttention", &plain, &[q, k, v, None, None, lengths, now]);
    assert!(error.to_string().contains("total_sequence_length"), "{error}");
}
