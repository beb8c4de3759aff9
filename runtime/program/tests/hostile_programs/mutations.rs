//! Whatever becomes of a sound program by chance, what is accepted tells nobody anything undeclared.

use marill_program::flow::{Consent, check};
use marill_program::schema::{Instruction as I, Program};
use marill_program::{Target, ValidProgram};
use proptest::prelude::*;

use crate::build::arguments_mut;
use crate::honest::{everything, product};
use crate::oracle::{Atom, interpret};

/// One change: what kind, where, and to what.
type Change = (u8, usize, u32);

fn change(program: &mut Program, (kind, place, number): Change) {
    let count = program.instructions.len();
    let at = place % count;
    if kind == 5 {
        let other = number as usize % count;
        program.instructions.swap(at, other);
        return;
    }
    if kind == 6 && !program.outputs.is_empty() {
        let outputs = program.outputs.len();
        let output = &mut program.outputs[place % outputs];
        match number % 3 {
            0 => output.to = (number / 3 % 4) as i32,
            1 => output.value = number / 3 % count as u32,
            _ => drop(program.outputs.remove(place % outputs)),
        }
        return;
    }
    let Some(instruction) = program.instructions[at].instruction.as_mut() else { return };
    match (kind, instruction) {
        (3, I::Input(i)) => i.owner = (number % 4) as i32,
        (3, I::Constant(c)) => c.owner = (number % 4) as i32,
        (3 | 4, I::Open(o)) => o.to = (number % 4) as i32,
        (3 | 4, I::Reveal(r)) => r.to = (number % 4) as i32,
        (_, instruction) => {
            let mut arguments = arguments_mut(instruction);
            if !arguments.is_empty() {
                let which = place / count % arguments.len();
                *arguments[which] = number % count as u32;
            }
        }
    }
}

/// Fails if an accepted program tells what no output declares.
fn hold(program: Program) -> bool {
    let Ok(flow) = check(&program) else { return false };
    let told = interpret(&program).unwrap_or_else(|reason| panic!("accepted, and {reason}\n{program:?}"));
    for fact in &told {
        let receiver = if fact.to_client { Target::Client } else { Target::Server };
        let declared = program.outputs.iter().any(|output| {
            let to = [Target::Both, receiver].map(|to| to as i32);
            output.value as usize == fact.at && to.contains(&output.to)
        });
        assert!(declared, "instruction {} tells the {receiver:?}\n{program:?}", fact.at);
    }
    let Ok(valid) = ValidProgram::new(program) else { return true };
    let public_inputs = ["p".to_owned()].into_iter().collect();
    let strict = Consent { public_inputs, ..Consent::default() };
    if strict.of_client(&valid, &flow).is_ok() {
        assert!(told.iter().all(|fact| fact.to_client));
    }
    if Consent::default().of_server(&valid, &flow).is_ok() {
        let own = |fact: &crate::oracle::Told| {
            fact.truth.contains(&Atom::Server)
                && !fact.truth.contains(&Atom::Client)
                && !fact.truth.contains(&Atom::Public)
        };
        assert!(!told.iter().any(|fact| fact.to_client && own(fact)));
    }
    true
}

#[test]
fn sound_programs_are_sound_to_the_oracle() {
    assert!(hold(product().program) && hold(everything().program));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn mutations_are_refused_or_tell_nothing_undeclared(
        changes in prop::collection::vec((0u8..7, any::<usize>(), any::<u32>()), 1..4),
        small in any::<bool>(),
    ) {
        let mut program = if small { product() } else { everything() }.program;
        changes.into_iter().for_each(|c| change(&mut program, c));
        hold(program);
    }
}

/// Every argument of every instruction, to every value: some pass, many do not, most of them for a reason that the
/// oracle sees as well.
#[test]
fn every_single_change_of_an_argument() {
    let whole = everything().program;
    let (mut accepted, mut refused, mut unsound) = (0, 0, 0);
    for at in 0..whole.instructions.len() {
        let mut probe = whole.clone();
        let count = arguments_mut(probe.instructions[at].instruction.as_mut().unwrap()).len();
        for which in 0..count {
            for value in 0..whole.instructions.len() as u32 {
                let mut program = whole.clone();
                let instruction = program.instructions[at].instruction.as_mut().unwrap();
                *arguments_mut(instruction)[which] = value;
                unsound += u32::from(interpret(&program).is_err());
                if hold(program) { accepted += 1 } else { refused += 1 }
            }
        }
    }
    let counts = format!("{accepted} accepted, {refused} refused, {unsound} unsound");
    assert!(accepted > 100 && refused > 1000 && unsound > refused / 2, "{counts}");
}
