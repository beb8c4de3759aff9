//! ONNX's own node tests through the whole street: compiled, run in exact ring arithmetic, run between parties.
//!
//! Every case runs as it is, all of its inputs the client's, so that the client computes it in the clear; and in a
//! shared form, where each input of floats is the sum of one of the client's and one of the server's, so that nobody
//! knows it. `onnx_nodes/collect.py` has made the cases and their manifest. `onnx_nodes/expected_failures.txt` says
//! which do not pass: lines `case stage reason`, the stage `import`, `compile` or `value` for the case as it is,
//! `shared` for compiling its shared form, `shared-value` for what that gives. The failure's message must contain
//! the reason.
//!
//! `MARILL_NODES=softmax cargo test --test system onnx_nodes` runs only cases whose name contains that.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use crate::support::parallel::in_parallel;
use crate::support::parties::{run, run_alone};
use marill_compiler::ir::Owner;
use marill_compiler::precision::headroom;
use marill_compiler::{Compiled, Diagnostic, Progress, Request, bundle, compile_observed, npz};
use marill_plaintext::{DType, Op, Tensor, evaluate};
use marill_program::Suite;
use onnx_protobuf::{ModelProto, NodeProto, TensorProto, ValueInfoProto, tensor_proto::DataType};
use protobuf::Message;

/// Beginning of the names of cases whose sum of squares, 224, goes beyond the bound 128 that arguments of square roots
/// have without a dealer; with one it is 256.
const BEYOND_BOUND_ALONE: &str = "test_reduce_l2_default_axes";

/// Named tensors.
type Tensors = BTreeMap<String, Tensor>;

/// A node test as the manifest and the archive have it.
struct Case {
    name: String,
    /// The operator it tests, also where that is spelled out as others.
    op: String,
    model: ModelProto,
    inputs: Tensors,
    outputs: Tensors,
    /// Relative to max(1, |expected|).
    tolerance: f32,
}

/// How far a case comes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Import,
    Compile,
    Value,
    Shared,
    SharedValue,
}

impl Stage {
    const ALL: [Stage; 5] = [Stage::Import, Stage::Compile, Stage::Value, Stage::Shared, Stage::SharedValue];
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Import => "import",
            Stage::Compile => "compile",
            Stage::Value => "value",
            Stage::Shared => "shared",
            Stage::SharedValue => "shared-value",
        })
    }
}

/// Where and why a case does not pass.
struct Failure {
    stage: Stage,
    message: String,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/onnx_nodes")
}

/// The archive's messages, in order.
struct Messages {
    bytes: Vec<u8>,
    at: usize,
}

impl Messages {
    fn open() -> Messages {
        let arrays = npz::read(&folder().join("cases.npz")).unwrap();
        let bytes = arrays["cases"].to_i64_vec().unwrap().into_iter().map(|byte| byte as u8).collect();
        Messages { bytes, at: 0 }
    }

    fn next<M: Message>(&mut self) -> M {
        let (length, rest) = self.bytes[self.at..].split_first_chunk::<4>().unwrap();
        let length = u32::from_le_bytes(*length) as usize;
        self.at += 4 + length;
        M::parse_from_bytes(&rest[..length]).unwrap()
    }

    fn tensors(&mut self, count: usize) -> Tensors {
        (0..count).map(|_| tensor(&self.next())).collect()
    }
}

/// A sample and its name.
fn tensor(proto: &TensorProto) -> (String, Tensor) {
    let shape: Vec<usize> = proto.dims.iter().map(|&length| length as usize).collect();
    let bytes = &proto.raw_data;
    let tensor = if proto.data_type == DataType::FLOAT as i32 {
        let values = bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes));
        Tensor::f32(shape, values.collect())
    } else if proto.data_type == DataType::INT64 as i32 {
        let values = bytes.as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes));
        Tensor::i64(shape, values.collect())
    } else {
        assert_eq!(proto.data_type, DataType::BOOL as i32, "{}", proto.name);
        Tensor::bool(shape, bytes.iter().map(|&byte| byte != 0).collect())
    };
    (proto.name.clone(), tensor.unwrap())
}

/// Every case of the manifest.
fn cases() -> Vec<Case> {
    let text = std::fs::read_to_string(folder().join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    let default_tolerance = manifest["default_tolerance"].as_f64().unwrap();
    let mut messages = Messages::open();
    let read = |entry: &serde_json::Value| {
        let text = |key: &str| entry[key].as_str().unwrap().to_owned();
        let count = |key: &str| entry[key].as_u64().unwrap() as usize;
        let tolerance = entry["tolerance"].as_f64().unwrap_or(default_tolerance) as f32;
        Case {
            name: text("case"),
            op: text("op"),
            model: messages.next(),
            inputs: messages.tensors(count("inputs")),
            outputs: messages.tensors(count("outputs")),
            tolerance,
        }
    };
    let cases: Vec<Case> = manifest["cases"].as_array().unwrap().iter().map(read).collect();
    assert_eq!(messages.at, messages.bytes.len(), "the archive holds more than the manifest says");
    cases
}

/// What one form of a case is compiled from and given.
struct Form {
    model: ModelProto,
    client: Tensors,
    server: Tensors,
}

impl Form {
    fn plain(case: &Case) -> Form {
        Form { model: case.model.clone(), client: case.inputs.clone(), server: Tensors::new() }
    }

    /// Each input of floats as a sum; `None` where there is no such input.
    fn shared(case: &Case) -> Option<Form> {
        let mut form = Form::plain(case);
        let mut numbers = crate::support::numbers::Numbers::of(&case.name);
        let graph = form.model.graph.mut_or_insert_default();
        let mut sums = Vec::new();
        for input in std::mem::take(&mut graph.input) {
            let value = &case.inputs[&input.name];
            if value.dtype() != DType::F32 {
                graph.input.push(input);
                continue;
            }
            // On a grid, so that sums of whole numbers are exact and ties stay ties.
            let own = (0..value.len()).map(|_| (numbers.normal() * 1024.0).round() / 1024.0).collect();
            let own = Tensor::f32(value.shape(), own).unwrap();
            let rest = evaluate(&Op::Sub, &[value, &own]).unwrap();
            let [client, server] = ["client", "server"].map(|party| format!("{} of the {party}", input.name));
            form.client.remove(&input.name);
            form.client.insert(client.clone(), rest);
            form.server.insert(server.clone(), own);
            sums.push(sum([&client, &server], &input.name));
            for name in [client, server] {
                graph.input.push(ValueInfoProto { name, ..input.clone() });
            }
        }
        sums.append(&mut graph.node);
        graph.node = sums;
        (!form.server.is_empty()).then_some(form)
    }
}

fn sum(operands: [&str; 2], result: &str) -> NodeProto {
    NodeProto {
        op_type: "Add".into(),
        input: operands.map(str::to_owned).to_vec(),
        output: vec![result.into()],
        ..NodeProto::default()
    }
}

/// A form compiled in `directory`, or the compiler's step that fails and its message.
fn compiled(
    form: &Form,
    directory: &Path,
    suite: Suite,
) -> Result<Compiled, (marill_compiler::Stage, String)> {
    let path = directory.join("model.onnx");
    std::fs::write(&path, form.model.write_to_bytes().unwrap()).unwrap();
    let owners = form.server.keys().map(|name| (name.clone(), Owner::Server)).collect();
    let request = Request { owners, suite, ..Request::default() };
    let mut stage = marill_compiler::Stage::Import;
    let result = catch_unwind(AssertUnwindSafe(|| {
        compile_observed(&path, &request, &mut |progress| {
            if let Progress::Begins(step) = progress {
                stage = step;
            }
        })
    }));
    match result {
        Ok(result) => result.map_err(|diagnostic| (stage, one_line(&diagnostic.to_string()))),
        Err(panic) => Err((stage, format!("panic: {}", spoken(&*panic)))),
    }
}

/// A message without its help.
fn one_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().to_owned()
}

fn spoken(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word").to_owned()
}

/// Runs a form in exact ring arithmetic, then between the parties of the suite that it was compiled for.
fn values(
    form: &Form,
    compiled: &Compiled,
    directory: &Path,
    case: &Case,
    suite: Suite,
) -> Result<(), String> {
    let sample: Tensors =
        form.client.iter().chain(&form.server).map(|(n, t)| (n.clone(), t.clone())).collect();
    let sample = std::slice::from_ref(&sample);
    let check = headroom::check(&compiled.graph, &compiled.lowered, &compiled.program, sample);
    let check = check.map_err(|error| one_line(&error.to_string()))?;
    if let Some(overflow) = headroom::first_overflow(&check) {
        return Err(one_line(&Diagnostic::from(overflow).to_string()));
    }
    compare(&check.outputs[0], case).map_err(|difference| format!("simulated: {difference}"))?;
    bundle::write(directory, &compiled.graph, &compiled.lowered).unwrap();
    let result = catch_unwind(AssertUnwindSafe(|| match suite {
        Suite::Dealer => run(directory, &form.client, &form.server).outputs,
        Suite::TwoParty => run_alone(directory, &form.client, &form.server),
    }));
    let outputs = result.map_err(|panic| format!("panic: {}", spoken(&*panic)))?;
    compare(&outputs, case).map_err(|difference| format!("between parties: {difference}"))
}

/// Whether what the client learns is what ONNX expects.
fn compare(found: &Tensors, case: &Case) -> Result<(), String> {
    for (name, expected) in &case.outputs {
        let found = found.get(name).ok_or_else(|| format!("no output \"{name}\""))?;
        if found.ty() != expected.ty() {
            return Err(format!("\"{name}\" is {}, not {}", found.ty(), expected.ty()));
        }
        let difference = match expected.dtype() {
            DType::F32 => {
                let (found, expected) = (found.to_f32_vec().unwrap(), expected.to_f32_vec().unwrap());
                first_apart(&found, &expected, |f, e| close(f, e, case.tolerance))
            }
            DType::I64 => {
                first_apart(&found.to_i64_vec().unwrap(), &expected.to_i64_vec().unwrap(), |f, e| f == e)
            }
            DType::Bool => {
                first_apart(&found.to_bool_vec().unwrap(), &expected.to_bool_vec().unwrap(), |f, e| f == e)
            }
        };
        if let Some(difference) = difference {
            return Err(format!("\"{name}\" {difference}"));
        }
    }
    Ok(())
}

fn close(found: f32, expected: f32, tolerance: f32) -> bool {
    if !expected.is_finite() {
        return found == expected || found.is_nan() && expected.is_nan();
    }
    (found - expected).abs() <= tolerance * expected.abs().max(1.0)
}

fn first_apart<T: Copy + fmt::Debug>(
    found: &[T],
    expected: &[T],
    alike: impl Fn(T, T) -> bool,
) -> Option<String> {
    let at = (0..expected.len()).find(|&at| !alike(found[at], expected[at]))?;
    Some(format!("has {:?} at {at}, not {:?}", found[at], expected[at]))
}

/// Runs both forms of a case; whether it has a shared form.
fn attempt(case: &Case) -> Result<bool, Failure> {
    let fail = |stage, message| Failure { stage, message };
    let directory = tempfile::tempdir().unwrap();
    let form = Form::plain(case);
    let plain = compiled(&form, directory.path(), Suite::Dealer).map_err(|(step, message)| {
        fail(if step == marill_compiler::Stage::Import { Stage::Import } else { Stage::Compile }, message)
    })?;
    values(&form, &plain, &directory.path().join("plain"), case, Suite::Dealer)
        .map_err(|message| fail(Stage::Value, message))?;
    let Some(form) = Form::shared(case) else { return Ok(false) };
    let shared = compiled(&form, directory.path(), Suite::Dealer)
        .map_err(|(_, message)| fail(Stage::Shared, message))?;
    values(&form, &shared, &directory.path().join("shared"), case, Suite::Dealer)
        .map_err(|message| fail(Stage::SharedValue, message))?;
    Ok(true)
}

/// Stage and reason by case.
fn expected_failures() -> BTreeMap<String, (String, String)> {
    let text = std::fs::read_to_string(folder().join("expected_failures.txt")).unwrap();
    let mut expected = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut words = line.splitn(3, ' ').map(str::to_owned);
        let (Some(case), Some(stage), Some(reason)) = (words.next(), words.next(), words.next()) else {
            panic!("\"{line}\" is not a case, a stage and a reason");
        };
        assert!(Stage::ALL.iter().any(|known| known.to_string() == stage), "{line}: no such stage");
        assert!(expected.insert(case, (stage, reason)).is_none(), "{line}: listed twice");
    }
    expected
}

/// The cases that the environment asks for.
fn is_wanted(case: &Case) -> bool {
    std::env::var("MARILL_NODES").map_or(true, |part| case.name.contains(&part))
}

#[test]
fn node_tests_pass_but_for_those_listed() {
    let mut expected = expected_failures();
    let cases = cases();
    let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    let mut problems: Vec<String> = expected
        .keys()
        .filter(|name| !names.contains(name.as_str()))
        .map(|name| format!("{name} is listed but not a case"))
        .collect();
    let wanted: Vec<Case> = cases.into_iter().filter(is_wanted).collect();
    assert!(!wanted.is_empty(), "no case has such a name");
    let results = in_parallel(&wanted, attempt);
    let (mut plain, mut shared, mut counts) = (0, 0, BTreeMap::new());
    for (case, result) in wanted.iter().zip(results) {
        let name = &case.name;
        match (result, expected.remove(name)) {
            (Ok(has_shared), None) => {
                plain += 1;
                shared += usize::from(has_shared);
            }
            (Ok(_), Some(_)) => problems.push(format!("{name} passes but is listed")),
            (Err(Failure { stage, message }), None) => {
                problems.push(format!("{name} {stage} {message}"));
            }
            (Err(Failure { stage, message }), Some((listed, reason))) => {
                plain += usize::from(stage > Stage::Value);
                *counts.entry(stage).or_insert(0) += 1;
                if stage.to_string() != listed || !message.contains(&reason) {
                    problems.push(format!(
                        "{name} is listed for {listed} \"{reason}\", found is {stage} {message}"
                    ));
                }
            }
        }
    }
    println!("{} cases: {plain} pass as they are, {shared} also shared", wanted.len());
    for (stage, count) in counts {
        println!("{count} fail as listed at {stage}");
    }
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

/// The first case of each operator whose shared form passes, between two parties alone.
#[test]
fn one_case_of_each_operator_passes_without_a_dealer() {
    let failures = expected_failures();
    let mut sample = cases();
    let mut seen = BTreeSet::new();
    sample.retain(|case| {
        let passes = !failures.contains_key(&case.name) && !case.name.starts_with(BEYOND_BOUND_ALONE);
        passes && is_wanted(case) && Form::shared(case).is_some() && seen.insert(case.op.clone())
    });
    let results = in_parallel(&sample, |case| {
        let directory = tempfile::tempdir().unwrap();
        let form = Form::shared(case).unwrap();
        let compiled = compiled(&form, directory.path(), Suite::TwoParty).map_err(|(_, message)| message)?;
        values(&form, &compiled, &directory.path().join("alone"), case, Suite::TwoParty)
    });
    println!("{} operators", sample.len());
    let problems: Vec<String> = sample
        .iter()
        .zip(results)
        .filter_map(|(case, result)| Some(format!("{}: {}", case.name, result.err()?)))
        .collect();
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}
