//! Mutations of text by lines and words.

use libfuzzer_sys::fuzzer_mutate;

use crate::random::Random;

/// A libFuzzer mutator: bytes now and then, else one to four changes of words and lines.
pub fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let mut random = Random::new(seed);
    let text = match std::str::from_utf8(&data[..size]) {
        Ok(text) if !text.is_empty() && !random.once_in(4) => text,
        _ => return fuzzer_mutate(data, size, max_size),
    };
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for _ in 0..=random.below(4) {
        change(&mut lines, &mut random);
    }
    let bytes = (lines.join("\n") + "\n").into_bytes();
    if bytes.len() > max_size || bytes.len() > data.len() {
        return fuzzer_mutate(data, size, max_size);
    }
    data[..bytes.len()].copy_from_slice(&bytes);
    bytes.len()
}

fn change(lines: &mut Vec<String>, random: &mut Random) {
    let Some(other) = random.choose(lines).cloned() else { return };
    let at = random.below(lines.len());
    match random.below(8) {
        0 => lines.insert(at, other),
        1 => drop(lines.remove(at)),
        2 => lines[at] = other,
        _ => {
            let mut words = words(&lines[at]);
            let Some(place) = (!words.is_empty()).then(|| random.below(words.len())) else { return };
            let others = self::words(&other);
            match random.below(5) {
                0 => drop(words.remove(place)),
                1 => words.insert(place, random.integer().to_string()),
                2 => words.extend(random.choose(&others).cloned()),
                3 => words[place] = random.integer().to_string(),
                _ => words[place] = random.choose(&others).cloned().unwrap_or_default(),
            }
            lines[at] = words.concat();
        }
    }
}

/// Runs of letters and digits, and what stands between them.
fn words(line: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    for c in line.chars() {
        match words.last_mut() {
            Some(word) if is_part(c) && word.ends_with(is_part) => word.push(c),
            _ => words.push(c.to_string()),
        }
    }
    words
}
