//! Orders a draft so that openings that do not depend on each other share a round.
//!
//! Precondition: a draft in any valid order. Postcondition: the same instructions, in the fewest rounds that data
//! dependence allows: an instruction's depth is the number of openings on the longest path before it; everything
//! of one depth stands together, local work before the openings.

use marill_program::plan;

use crate::lower::draft::{Builder, Id};
use crate::lower::width::reorder;

/// Reorders the draft.
pub fn schedule(builder: &mut Builder) {
    let mut ready = vec![0u32; builder.drafts.len()];
    let mut keys = Vec::with_capacity(builder.drafts.len());
    for (at, draft) in builder.drafts.iter().enumerate() {
        let before =
            plan::arguments(&draft.instruction).iter().map(|&a| ready[a as usize]).max().unwrap_or(0);
        let opens = plan::communicates(&draft.instruction);
        ready[at] = before + u32::from(opens);
        keys.push((before, opens, at as Id));
    }
    keys.sort_unstable();
    let order: Vec<Id> = keys.into_iter().map(|(_, _, at)| at).collect();
    reorder(builder, &order);
}
