//! The statement for people.

use std::fmt;

use super::statement::{PartyStatement, Statement, Tensors};

impl fmt::Display for Tensors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.count == 1 { "" } else { "s" };
        write!(f, "{} tensor{plural} of {} elements", self.count, self.elements)
    }
}

fn names(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

/// `64, 65 and 10 more`.
fn some_of<T: fmt::Display>(all: &[T]) -> String {
    const SHOWN: usize = 12;
    let shown: Vec<String> = all.iter().take(SHOWN).map(T::to_string).collect();
    let more = all.len().saturating_sub(SHOWN);
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}

fn party(f: &mut fmt::Formatter<'_>, name: &str, p: &PartyStatement) -> fmt::Result {
    writeln!(f, "the {name}")?;
    for input in &p.inputs {
        let public = if input.public { ", as the other party does" } else { "" };
        writeln!(f, "  holds     input {} {}{public}", input.name, input.ty)?;
    }
    for (what, tensors) in [
        ("public constants", p.public_constants),
        ("private constants", p.private_constants),
        ("weights under masks that it does not know", p.masked_weights),
    ] {
        if tensors.count > 0 {
            writeln!(f, "  holds     {what}: {tensors}")?;
        }
    }
    for output in &p.sees {
        let both = if output.both { ", as the other party does" } else { "" };
        let mut from = output.inputs.clone();
        from.extend(output.private_constants.then(|| "private constants".to_owned()));
        let (name, ty, from) = (&output.name, &output.ty, names(&from));
        match output.bits {
            0 => writeln!(f, "  sees      output {name} {ty} of its own {from}{both}")?,
            bits => writeln!(f, "  sees      output {name} {ty}, up to {bits} bits from {from}{both}")?,
        }
    }
    if p.sees.is_empty() {
        writeln!(f, "  sees      no output")?;
    }
    let words = p.must_allow.words();
    if !words.is_empty() {
        writeln!(f, "  must say  {}", words.join(" "))?;
    }
    let openings = p.openings;
    writeln!(
        f,
        "  receives  {} openings of {} numbers under masks, {} uniform bits that tell nothing",
        openings.count, openings.elements, openings.bits
    )?;
    if !p.clear.is_empty() {
        let layers: Vec<&String> = p.clear.iter().map(|work| &work.layer).collect();
        let operations: u64 = p.clear.iter().flat_map(|work| work.operations.values()).sum();
        writeln!(f, "  computes  in the clear {operations} operations: {}", some_of(&layers))?;
    }
    let mut hidden = p.hidden_inputs.clone();
    if p.hidden_constants.count > 0 {
        hidden.push(format!("private constants ({})", p.hidden_constants));
    }
    writeln!(f, "  does not learn  {}, nor any hidden value", names(&hidden))
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        party(f, "client", &self.client)?;
        party(f, "server", &self.server)?;
        if !self.private_layers.is_empty() {
            writeln!(f, "private constants go into")?;
        }
        for layer in &self.private_layers {
            let times = if layer.count > 1 { format!(" x {}", layer.count) } else { String::new() };
            writeln!(f, "  {}{times}: {}", layer.name, layer.constants)?;
        }
        let all = &self.everybody;
        writeln!(f, "everybody knows, a dealer too where there is one")?;
        writeln!(
            f,
            "  {} instructions in {} layers, every shape, owner and receiver, {} names in the model",
            all.instructions, all.layers, all.names
        )?;
        for (name, size) in &all.dims {
            writeln!(f, "  {} = {size}", name.escape_debug())?;
        }
        if !all.ring_bits.is_empty() {
            writeln!(
                f,
                "  fraction bits {}; ring bits {}",
                some_of(&all.frac_bits),
                some_of(&all.ring_bits)
            )?;
        }
        if all.positions.count > 0 {
            writeln!(f, "  public positions: {}", all.positions)?;
        }
        for rank in &self.ranks {
            let times = if rank.count > 1 { format!(" x {}", rank.count) } else { String::new() };
            writeln!(
                f,
                "  rank {}: [{}, {}] then [{}, {}] in {}{times}",
                rank.rank, rank.rows, rank.rank, rank.rank, rank.columns, rank.second
            )?;
        }
        writeln!(f, "nothing else reaches a party")
    }
}
