//! Public bounds become as wide as samples need, and no wider than was left open.

use std::fs;

use marill_compiler::calibrate::Sample;
use marill_compiler::fitting::{Freedom, fit};
use marill_compiler::precision::tensors::{Holder, tensor_rows};
use marill_compiler::{Approximate, Numerics, Request, read};
use marill_plaintext::{DType, Tensor, TensorType};
use marill_program::Suite;

use crate::model::Model;

const OPEN: Freedom =
    Freedom { hidden_bits: true, range_bits: true, approximate: Vec::new(), max_error: None };

/// `f(x w)`, w being 1 everywhere but where x's first element meets its first column.
fn model(large: f32, write: impl FnOnce(&mut Model)) -> Vec<u8> {
    let mut model = Model::new(20);
    model.input("x", &TensorType { dtype: DType::F32, shape: vec![2, 4] });
    let weights = (0..32).map(|i| if i == 0 { large } else { (i % 7) as f32 / 4.0 - 0.75 }).collect();
    model.initializer("w", &Tensor::f32([4, 8], weights).unwrap());
    model.node("MatMul", &["x", "w"], &["h"], &[]);
    write(&mut model);
    model.output("y");
    model.bytes()
}

/// What the bounds become, or the error; and by how much the output is off.
fn fitted(bytes: &[u8], suite: Suite, freedom: Freedom) -> Result<(Numerics, f64), String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    fs::write(&path, bytes).unwrap();
    let request = Request { suite, ..Request::default() };
    let model = read(&path, &request, &mut |_| {}).map_err(|error| error.to_string())?;
    let x = Tensor::f32([2, 4], vec![1.0, 0.5, -0.25, 0.75, 0.0, 1.0, 0.5, -1.0]).unwrap();
    let samples = [Sample::from([("x".to_owned(), x)])];
    let freedom = Freedom { approximate: vec![Approximate::Exact], ..freedom };
    let (compiled, calibration) =
        fit(&model, &request, &freedom, &samples, &mut |_| {}).map_err(|error| error.to_string())?;
    Ok((compiled.numerics, calibration.max_error()))
}

fn norm(model: &mut Model) {
    model.initializer("gain", &Tensor::f32([8], vec![1.5; 8]).unwrap());
    model.initializer("bias", &Tensor::f32([8], vec![0.25; 8]).unwrap());
    model.node("LayerNormalization", &["h", "gain", "bias"], &["y"], &[]);
}

fn gelu(model: &mut Model) {
    model.node("Gelu", &["h"], &["y"], &[]);
}

#[test]
fn hidden_states_may_have_outliers() {
    let usual = Numerics::default();
    for suite in [Suite::Dealer, Suite::TwoParty] {
        assert_eq!(fitted(&model(50.0, norm), suite, OPEN).unwrap().0, usual, "{suite:?}");
        for (large, hidden_bits) in [(300.0, 10), (3000.0, 13)] {
            let (numerics, error) = fitted(&model(large, norm), suite, OPEN).unwrap();
            assert_eq!(numerics, Numerics { hidden_bits, ..usual }, "{suite:?} {large}");
            assert!(error < 4e-3, "{suite:?} {large}: off by {error}");
        }
    }
}

#[test]
fn arguments_of_activations_get_range_bits() {
    let (numerics, error) = fitted(&model(40.0, gelu), Suite::TwoParty, OPEN).unwrap();
    assert_eq!(numerics, Numerics { range_bits: 8, ..Numerics::default() });
    assert!(error < 2e-3, "off by {error}");
}

#[test]
fn what_was_asked_for_is_kept() {
    let fixed = Freedom { hidden_bits: false, range_bits: false, ..OPEN };
    for (bytes, node) in [(model(300.0, norm), "norm y"), (model(40.0, gelu), "gelu y")] {
        let error = fitted(&bytes, Suite::TwoParty, fixed.clone()).unwrap_err();
        assert!(error.contains(node) && error.contains("--hidden-bits"), "{error}");
    }
    let error = fitted(&model(1e5, norm), Suite::TwoParty, OPEN).unwrap_err();
    assert!(error.contains("100000") || error.contains("at most 13"), "{error}");
}

#[test]
fn the_least_and_the_widest_bounds_can_be_lowered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    fs::write(&path, model(1.0, norm)).unwrap();
    for suite in [Suite::Dealer, Suite::TwoParty] {
        let request = Request { suite, ..Request::default() };
        let model = read(&path, &request, &mut |_| {}).unwrap();
        for range_bits in [*Numerics::RANGE_BITS.start(), *Numerics::RANGE_BITS.end()] {
            for hidden_bits in Numerics::HIDDEN_BITS.step_by(3) {
                for frac_bits in [*Numerics::FRAC_BITS.start(), *Numerics::FRAC_BITS.end()] {
                    let numerics = Numerics { frac_bits, range_bits, hidden_bits };
                    let request = Request { numerics, ..request.clone() };
                    let compiled = model.compile(&request, &mut |_| {});
                    let compiled = compiled.unwrap_or_else(|error| panic!("{suite:?} {numerics:?}: {error}"));
                    let rows = tensor_rows(&compiled.program);
                    let product = rows.iter().find(|row| row.group.starts_with("mat_mul")).unwrap();
                    assert_eq!((product.holder, &product.shape[..]), (Holder::Shared, &[2, 8][..]));
                    let encoding = product.encoding.unwrap();
                    assert!(encoding.below >= f64::from(hidden_bits.max(range_bits)).exp2());
                }
            }
        }
    }
}
