//! Mutations of programs: instructions and their fields.

use libfuzzer_sys::fuzzer_mutate;
use marill_program::Program;
use marill_program::schema::{Output, Step};
use prost::Message;

use crate::random::Random;

/// A libFuzzer mutator: bytes now and then, else one to four changes of the program.
pub fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let mut random = Random::new(seed);
    let Some(mut program) = Program::decode(&data[..size]).ok().filter(|_| !random.once_in(5)) else {
        return fuzzer_mutate(data, size, max_size);
    };
    for _ in 0..=random.below(4) {
        change(&mut program, &mut random);
    }
    let bytes = program.encode_to_vec();
    if bytes.len() > max_size || bytes.len() > data.len() {
        return fuzzer_mutate(data, size, max_size);
    }
    data[..bytes.len()].copy_from_slice(&bytes);
    bytes.len()
}

fn change(program: &mut Program, random: &mut Random) {
    let steps = &mut program.instructions;
    let Some(step) = random.choose(steps).cloned() else { return };
    let (at, last) = (random.below(steps.len()), steps.len() - 1);
    match random.below(12) {
        0 => steps.push(step),
        1 => steps[at] = step,
        2 => drop(steps.pop()),
        3 => {
            let value = random.below(last + 2) as u32;
            let output = Output { name: format!("y{value}"), value, to: random.below(4) as i32 };
            program.outputs.push(output);
        }
        4 => {
            let outputs = program.outputs.len();
            if let Some(output) = program.outputs.get_mut(random.below(outputs)) {
                (output.value, output.to) = (random.below(last + 2) as u32, random.below(4) as i32);
            }
        }
        5 => steps[at] = with_bytes(&step, random).unwrap_or(step),
        _ => steps[at] = with_number(&steps[at], last, random).unwrap_or(step),
    }
}

/// The instruction with some bytes of its own fields changed.
fn with_bytes(step: &Step, random: &mut Random) -> Option<Step> {
    let mut bytes = step.encode_to_vec();
    let size = bytes.len();
    bytes.resize(size + 16, 0);
    for _ in 0..4 {
        let mut changed = bytes.clone();
        let length = fuzzer_mutate(&mut changed, size, size + 16);
        if let Ok(step) = Step::decode(&changed[..length]) {
            return Some(step);
        }
    }
    bytes.truncate(size);
    let at = random.below(size);
    *bytes.get_mut(at)? = random.integer() as u8;
    Step::decode(bytes.as_slice()).ok()
}

/// The instruction with one number of its own replaced: an earlier value, or any.
fn with_number(step: &Step, last: usize, random: &mut Random) -> Option<Step> {
    let bytes = step.encode_to_vec();
    // Tag and length of the instruction, then its fields.
    let (mut at, mut numbers) = (0, Vec::new());
    let tag = varint(&bytes, &mut at)?;
    let length = varint(&bytes, &mut at)? as usize;
    let end = at.checked_add(length).filter(|&end| end <= bytes.len())?;
    let begin = at;
    while at < end {
        let key = varint(&bytes, &mut at)?;
        let start = at;
        match key & 7 {
            0 => {
                varint(&bytes, &mut at)?;
                numbers.push(start..at);
            }
            1 => at += 8,
            2 => {
                let length = varint(&bytes, &mut at)? as usize;
                at = at.checked_add(length)?;
            }
            5 => at += 4,
            _ => return None,
        }
    }
    // A field that is not there is zero.
    let value =
        if random.once_in(2) { random.below(last + 1) as u64 } else { random.integer() as u64 & 0xffff_ffff };
    let mut fields = bytes[begin..end].to_vec();
    let mut number = Vec::new();
    prost::encoding::encode_varint(value, &mut number);
    match random.choose(&numbers) {
        Some(range) if !random.once_in(4) => {
            fields.splice(range.start - begin..range.end - begin, number);
        }
        _ => {
            prost::encoding::encode_varint((random.below(9) as u64 + 1) << 3, &mut fields);
            fields.append(&mut number);
        }
    }
    let mut changed = Vec::new();
    prost::encoding::encode_varint(tag, &mut changed);
    prost::encoding::encode_varint(fields.len() as u64, &mut changed);
    changed.append(&mut fields);
    changed.extend_from_slice(&bytes[end..]);
    Step::decode(changed.as_slice()).ok()
}

fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut rest = bytes.get(*at..)?;
    let before = rest.len();
    let value = prost::encoding::decode_varint(&mut rest).ok()?;
    *at += before - rest.len();
    Some(value)
}
