//! Samples of texts.

use std::fs;
use std::path::Path;

use marill_compiler::calibrate::Sample;
use marill_compiler::text_samples::{MAX_SAMPLES, TextError, read_text};
use marill_plaintext::{DType, TensorType};

/// Words are tokens. The file asks for cuts and padding that samples do not follow.
const TOKENIZER: &str = r#"{
    "version": "1.0",
    "truncation": { "direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0 },
    "padding": {
        "strategy": { "Fixed": 7 }, "direction": "Left", "pad_to_multiple_of": null, "pad_id": 5, "pad_type_id": 0,
        "pad_token": "[PAD]"
    },
    "added_tokens": [],
    "normalizer": null,
    "pre_tokenizer": { "type": "Whitespace" },
    "post_processor": null,
    "decoder": null,
    "model": {
        "type": "WordLevel",
        "vocab": { "a": 1, "b": 2, "c": 3, "[UNK]": 4, "[PAD]": 5 },
        "unk_token": "[UNK]"
    }
}"#;

fn samples(text: &str, inputs: &[(&str, DType, &[usize])]) -> Result<Vec<Sample>, TextError> {
    let folder = tempfile::tempdir().unwrap();
    let (words, tokenizer) = (folder.path().join("words.txt"), folder.path().join("tokenizer.json"));
    fs::write(&words, text).unwrap();
    fs::write(&tokenizer, TOKENIZER).unwrap();
    let inputs: Vec<(String, TensorType)> = inputs
        .iter()
        .map(|&(name, dtype, shape)| (name.to_owned(), TensorType::new(dtype, shape.to_vec())))
        .collect();
    read_text(&words, &tokenizer, &inputs)
}

fn numbers(sample: &Sample, name: &str) -> Vec<i64> {
    sample[name].cast(DType::I64).to_i64_vec().unwrap()
}

#[test]
fn a_model_without_a_mask_gets_whole_pieces() {
    let found = samples("a b\nc a what", &[("ids", DType::I64, &[1, 2]), ("position_ids", DType::I64, &[2])]);
    let found = found.unwrap();
    let tokens: Vec<Vec<i64>> = found.iter().map(|sample| numbers(sample, "ids")).collect();
    assert_eq!(tokens, [[1, 2], [3, 1]]);
    assert_eq!(numbers(&found[1], "position_ids"), [0, 1]);
}

#[test]
fn a_model_with_a_mask_gets_lines() {
    let inputs: [(&str, DType, &[usize]); 3] = [
        ("input_ids", DType::I64, &[1, 3]),
        ("attention_mask", DType::F32, &[1, 3]),
        ("token_type_ids", DType::I64, &[1, 3]),
    ];
    let found = samples("a b\n\n c c c c\n", &inputs).unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(numbers(&found[0], "input_ids"), [1, 2, 5]);
    assert_eq!(numbers(&found[0], "attention_mask"), [1, 1, 0]);
    assert_eq!(numbers(&found[1], "input_ids"), [3, 3, 3]);
    assert_eq!(numbers(&found[1], "attention_mask"), [1, 1, 1]);
    assert_eq!(numbers(&found[1], "token_type_ids"), [0; 3]);
    assert_eq!(found[0]["attention_mask"].dtype(), DType::F32);
}

#[test]
fn long_texts_are_sampled_evenly_and_batches_filled() {
    let text = ["a"; 100].join("\n") + "\nb";
    let found = samples(&text, &[("ids", DType::I64, &[2, 1])]).unwrap();
    assert_eq!(found.len(), MAX_SAMPLES);
    assert!(found.iter().all(|sample| numbers(sample, "ids") == [1, 1]));
}

#[test]
fn what_gives_no_samples_says_why() {
    let ids: (&str, DType, &[usize]) = ("input_ids", DType::I64, &[1, 4]);
    let short = samples("a b c", &[ids]).unwrap_err().to_string();
    assert_eq!(short, "the text has 3 tokens, the model takes 4 at once");
    let batch = samples("a b c a b", &[("ids", DType::I64, &[2, 4])]).unwrap_err();
    assert!(matches!(batch, TextError::Short { found: 5, needed: 8 }));
    let masked: [(&str, DType, &[usize]); 2] =
        [("ids", DType::I64, &[2, 4]), ("attention_mask", DType::I64, &[2, 4])];
    let lines = samples("a b c a b\n\n", &masked).unwrap_err();
    assert!(matches!(lines, TextError::Lines { found: 1, needed: 2 }));
    assert!(matches!(samples("a", &masked[1..]).unwrap_err(), TextError::NoTokens));
    for other in
        [("pixels", DType::F32, &[1, 4][..]), ("more", DType::I64, &[1, 4]), ("mask", DType::I64, &[1, 5])]
    {
        let error = samples("a b c a", &[ids, other]).unwrap_err().to_string();
        assert!(error.contains(other.0) && error.contains("npz"), "{error}");
    }
    let nowhere = read_text(Path::new("nowhere.txt"), Path::new("nowhere.json"), &[]).unwrap_err();
    assert!(matches!(nowhere, TextError::Text(_)));
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/small_lm");
    let error =
        read_text(&example.join("README.md"), Path::new("nowhere.json"), &[]).unwrap_err().to_string();
    assert!(error.starts_with("nowhere.json is not a tokenizer") && error.contains("--tokenizer"), "{error}");
}

#[test]
fn the_examples_tokenizer_makes_samples_of_its_model() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/small_lm");
    let inputs = [("input_ids".to_owned(), TensorType::new(DType::I64, vec![1, 64]))];
    let found = read_text(&example.join("README.md"), &example.join("tokenizer.json"), &inputs).unwrap();
    assert!(found.len() > 2);
    assert!(
        found
            .iter()
            .all(|sample| numbers(sample, "input_ids").iter().all(|&token| (0..512).contains(&token)))
    );
}
