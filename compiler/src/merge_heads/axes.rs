//! What the axes of a value inside attention are made of: heads, columns of a head, and all else.

use std::collections::BTreeSet;

/// Columns of a head, from a first to before a last.
pub type Columns = (usize, usize);

/// A factor of an axis's length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Factor {
    /// Neither heads nor columns of one.
    Plain(usize),
    /// Heads, or those that hold keys and values.
    Heads(usize),
    /// Columns of a head, in the order in which they stand.
    Width(Vec<Columns>),
}

/// An axis as the factors of its length, outermost first.
pub type Axis = Vec<Factor>;

impl Factor {
    /// Its length.
    pub fn len(&self) -> usize {
        match self {
            Factor::Plain(length) | Factor::Heads(length) => *length,
            Factor::Width(pieces) => pieces.iter().map(|(start, end)| end - start).sum(),
        }
    }

    /// Its length once `factor` heads are one.
    pub fn merged_len(&self, factor: usize) -> usize {
        match self {
            Factor::Plain(length) => *length,
            Factor::Heads(length) => length / factor,
            Factor::Width(_) => self.len() * factor,
        }
    }
}

/// An axis of no heads and no columns.
pub fn plain(length: usize) -> Axis {
    if length == 1 { Vec::new() } else { vec![Factor::Plain(length)] }
}

/// Its length.
pub fn length(axis: &Axis) -> usize {
    axis.iter().map(Factor::len).product()
}

/// Its length once `factor` heads are one.
pub fn merged_length(axis: &Axis, factor: usize) -> usize {
    axis.iter().map(|f| f.merged_len(factor)).product()
}

/// Whether heads are along the axis.
pub fn has_heads(axis: &Axis) -> bool {
    axis.iter().any(|f| matches!(f, Factor::Heads(_)))
}

/// The columns along an axis that is nothing but columns.
pub fn columns(axis: &Axis) -> Option<&Vec<Columns>> {
    match axis.as_slice() {
        [Factor::Width(pieces)] => Some(pieces),
        _ => None,
    }
}

/// Whether columns are along the axis.
pub fn has_width(axis: &Axis) -> bool {
    axis.iter().any(|f| matches!(f, Factor::Width(_)))
}

/// The axes of a value with `axes` once it is reshaped to `shape`; nothing if a head would be cut.
pub fn regroup(axes: &[Axis], shape: &[usize]) -> Option<Vec<Axis>> {
    let mut left: Vec<Factor> = axes.iter().flatten().filter(|f| f.len() != 1).cloned().collect();
    left.reverse();
    let mut regrouped = Vec::with_capacity(shape.len());
    for &length in shape {
        let mut needed = length;
        let mut axis = Axis::new();
        while needed != 1 {
            let factor = left.pop()?;
            match factor.len() {
                0 => return None,
                found if needed.is_multiple_of(found) => {
                    needed /= found;
                    axis.push(factor);
                }
                found if found.is_multiple_of(needed) && matches!(factor, Factor::Plain(_)) => {
                    axis.push(Factor::Plain(needed));
                    left.push(Factor::Plain(found / needed));
                    needed = 1;
                }
                _ => return None,
            }
        }
        regrouped.push(axis);
    }
    left.is_empty().then_some(regrouped)
}

/// Columns `start..end` of those along an axis, and where that cuts a head.
pub fn slice(pieces: &[Columns], start: usize, end: usize, cuts: &mut BTreeSet<usize>) -> Vec<Columns> {
    let mut sliced = Vec::new();
    let mut at = 0;
    for &(first, last) in pieces {
        let (from, to) = (start.max(at), end.min(at + last - first));
        if from < to {
            let piece = (first + from - at, first + to - at);
            cuts.extend([piece.0, piece.1]);
            sliced.push(piece);
        }
        at += last - first;
    }
    sliced
}

/// The pieces, cut wherever a head is cut.
pub fn refine(pieces: &[Columns], cuts: &BTreeSet<usize>) -> Vec<Columns> {
    let mut refined = Vec::new();
    for &(start, end) in pieces {
        let mut from = start;
        for &cut in cuts.range(start..end).filter(|&&cut| cut > start) {
            refined.push((from, cut));
            from = cut;
        }
        refined.push((from, end));
    }
    refined
}

/// For each column of `factor` heads side by side, merged piece by piece, the column of the one that is repeated: how
/// a table that holds for every head is widened.
pub fn widened(pieces: &[Columns], factor: usize) -> Vec<usize> {
    let mut order = Vec::new();
    let mut at = 0;
    for (start, end) in pieces {
        let next = at + end - start;
        order.extend((0..factor).flat_map(|_| at..next));
        at = next;
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use Factor::{Heads, Plain, Width};

    #[test]
    fn reshapes_keep_heads_whole() {
        let split = vec![vec![], vec![Heads(4)], vec![Plain(16)], vec![Width(vec![(0, 16)])]];
        let regrouped = regroup(&split, &[4, 16, 16]).unwrap();
        assert_eq!(regrouped, [vec![Heads(4)], vec![Plain(16)], vec![Width(vec![(0, 16)])]]);
        assert_eq!(regroup(&regrouped, &[1, 4, 16, 16]).unwrap(), split);
        assert_eq!(regroup(&split, &[1, 2, 32, 16]), None);
        let merged = regroup(&[split[1].clone(), split[3].clone()], &[64]).unwrap();
        assert_eq!((length(&merged[0]), merged_length(&merged[0], 2)), (64, 64));
        let rows = [vec![Plain(32)], vec![Heads(4)], vec![Width(vec![(0, 8)])]];
        assert_eq!(regroup(&rows, &[2, 16, 4, 8]).unwrap()[..2], [vec![Plain(2)], vec![Plain(16)]]);
    }

    #[test]
    fn halves_of_heads_stay_in_step() {
        let mut cuts = BTreeSet::new();
        let whole = vec![(0, 8)];
        let (left, right) = (slice(&whole, 0, 4, &mut cuts), slice(&whole, 4, 8, &mut cuts));
        assert_eq!((left.as_slice(), right.as_slice()), ([(0, 4)].as_slice(), [(4, 8)].as_slice()));
        assert_eq!(refine(&whole, &cuts), [(0, 4), (4, 8)]);
        assert_eq!(widened(&[(0, 2), (2, 4)], 2), [0, 1, 0, 1, 2, 3, 2, 3]);
    }
}
