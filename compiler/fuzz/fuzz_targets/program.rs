//! Any bytes as a program from a peer: what a party does with one before it agrees to run it.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use marill_fuzz::program::mutate;
use marill_plaintext::{Tensor, TensorType};
use marill_program::cost::cost;
use marill_program::flow::{Consent, Statement, check};
use marill_program::interpret::interpret;
use marill_program::plan::Plan;
use marill_program::work::work;
use marill_program::{Form, Instruction, Suite, ValidProgram, ValueType, two_party};

/// Most elements of all values together, and of all correlations, of a program that is run.
const MAX_ELEMENTS: usize = 1 << 16;

fuzz_target!(|bytes: &[u8]| {
    let Ok(program) = ValidProgram::decode(bytes) else { return };
    let again = ValidProgram::decode(&program.encode()).expect("what is valid stays so");
    assert_eq!(program.digest(), again.digest());
    let _ = program.to_string();
    if let Ok(flow) = check(program.program()) {
        let _ = Consent::needed_by_client(&program, &flow).words();
        let _ = Consent::default().of_client(&program, &flow);
        let _ = Consent::default().of_server(&program, &flow);
        let _ = Statement::new(&program, &flow).to_string();
    }
    let _ = Plan::new(&program);
    let _ = (work(&program), cost(&program, bytes.len() as u64, Suite::Dealer));
    if two_party::limits::check(&program).is_ok() {
        let _ = cost(&program, bytes.len() as u64, Suite::TwoParty);
    }
    run(&program);
});

/// Runs a small program on zeros.
fn run(program: &ValidProgram) {
    let elements = |ty: &ValueType| ty.shape.iter().fold(1usize, |n, &d| n.saturating_mul(d));
    let correlations = (0..program.len()).flat_map(|at| marill_program::correlation::fields(program, at));
    let total = program.types().iter().map(elements).fold(0, usize::saturating_add);
    if correlations.map(|field| field.len).fold(total, usize::saturating_add) > MAX_ELEMENTS {
        return;
    }
    let zeros = |at: usize| match &program.types()[at] {
        ValueType { form: Form::Plain { dtype, .. }, shape } => {
            Tensor::zeros(TensorType { dtype: *dtype, shape: shape.clone() }).ok()
        }
        _ => None,
    };
    let (mut inputs, mut constants) = (BTreeMap::new(), BTreeMap::new());
    for at in 0..program.len() {
        match program.instruction(at) {
            Instruction::Input(input) => inputs.extend(zeros(at).map(|x| (input.name.clone(), x))),
            Instruction::Constant(constant) => {
                constants.extend(zeros(at).map(|x| (constant.name.clone(), x)))
            }
            _ => {}
        }
    }
    let mut constant = |name: &str| constants.get(name).cloned().ok_or_else(|| "missing".to_owned());
    let _ = interpret(program, &inputs, &mut constant);
}

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate(data, size, max_size, seed)
});
