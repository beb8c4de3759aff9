//! What the client gets does not depend on the elements of private weights: the same model with other weights gives
//! the same client's directory, byte for byte.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use marill_compiler::{Request, Weights, bundle, compile};
use marill_program::Suite;
use onnx_protobuf::{Message, ModelProto};

const FLOAT: i32 = 1;

/// The shipped model, every f32 tensor of more than one element filled by `element(tensor, index)`.
fn model_with(element: impl Fn(usize, usize) -> f32) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/small_lm/model.onnx");
    let mut model = ModelProto::parse_from_bytes(&fs::read(path).unwrap()).unwrap();
    let mut replaced = 0;
    for (number, tensor) in model.graph.mut_or_insert_default().initializer.iter_mut().enumerate() {
        let count: i64 = tensor.dims.iter().product();
        if tensor.data_type == FLOAT && count > 1 {
            assert_eq!(tensor.raw_data.len(), 4 * count as usize);
            tensor.raw_data = (0..count as usize).flat_map(|i| element(number, i).to_le_bytes()).collect();
            replaced += 1;
        }
    }
    assert!(replaced > 50);
    model.write_to_bytes().unwrap()
}

/// The client's files.
fn client_files(model: &[u8]) -> BTreeMap<String, Vec<u8>> {
    client_files_with(model, &Request { suite: Suite::Dealer, ..Request::default() })
}

fn client_files_with(model: &[u8], request: &Request) -> BTreeMap<String, Vec<u8>> {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("model.onnx");
    fs::write(&path, model).unwrap();
    let compiled = compile(&path, request).unwrap();
    bundle::write(scratch.path(), &compiled.graph, &compiled.lowered).unwrap();
    let entries = fs::read_dir(scratch.path().join("client")).unwrap().map(|e| e.unwrap().path());
    let named = entries.map(|path| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, fs::read(&path).unwrap())
    });
    named.collect()
}

/// Element `i` of tensor number `n`.
type Element = fn(usize, usize) -> f32;

#[test]
fn the_clients_files_are_the_same_for_all_weights() {
    let small = |number: usize, i: usize| ((number * 7919 + i * 104_729) % 2003) as f32 / 2003.0 - 0.5;
    let expected = client_files(&model_with(small));
    assert!(expected["program.marill"].len() > 1000);
    let others: [(&str, Element); 6] = [
        ("zeros", |_, _| 0.0),
        ("ones", |_, _| 1.0),
        ("equal tensors", |_, i| (i % 13) as f32),
        ("large", |number, i| (number + i) as f32 * 1e3),
        ("masked out", |_, _| f32::NEG_INFINITY),
        ("not numbers", |_, _| f32::NAN),
    ];
    for (name, element) in others {
        let found = client_files(&model_with(element));
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{name}");
        for (file, bytes) in &found {
            assert!(bytes == &expected[file], "{name}: {file} depends on private weights");
        }
    }
}

/// The shipped model with noise, by `seed`, in the place of its last block's weights.
fn tuned(seed: usize) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/small_lm/model.onnx");
    let mut model = ModelProto::parse_from_bytes(&fs::read(path).unwrap()).unwrap();
    let mut replaced = 0;
    for tensor in &mut model.graph.mut_or_insert_default().initializer {
        let count = tensor.dims.iter().product::<i64>() as usize;
        if tensor.data_type == FLOAT && count > 1 && tensor.name.contains("h.3.") {
            let element = |i: usize| ((i * 7919 + seed * 104_729) % 2003) as f32 / 2003.0 - 0.5;
            tensor.raw_data = (0..count).flat_map(|i| element(i).to_le_bytes()).collect();
            replaced += 1;
        }
    }
    assert!(replaced > 5);
    model.write_to_bytes().unwrap()
}

#[test]
fn the_clients_files_do_not_depend_on_what_the_base_model_has_not() {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/small_lm/model.onnx");
    let files = |seed: usize| {
        let weights = Weights { base: Some(base.clone()), ..Weights::default() };
        let request = Request { weights, suite: Suite::Dealer, ..Request::default() };
        client_files_with(&tuned(seed), &request)
    };
    let (first, second) = (files(1), files(2));
    assert_eq!(first.keys().collect::<Vec<_>>(), second.keys().collect::<Vec<_>>());
    for (file, bytes) in &first {
        assert!(bytes == &second[file], "{file} depends on private weights");
    }
    // What is published is there: without a base model the client has no weights at all.
    let alone = client_files_with(&tuned(1), &Request { suite: Suite::Dealer, ..Request::default() });
    assert!(first["public.safetensors"].len() > 10 * alone["public.safetensors"].len());
}
