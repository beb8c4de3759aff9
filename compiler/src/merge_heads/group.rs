//! Which heads become one: those that lose least.

use std::collections::BTreeMap;

/// Most heads that are paired by looking at every pairing.
const MAX_EXACT: usize = 16;

/// Splits `0..heads` into groups of `factor` so that the sum of `cost` is small: the least for pairs of up to 16
/// heads, else the better of what greedy choice and neighbours lead to when heads change places as long as that helps.
pub fn group(heads: usize, factor: usize, cost: &mut dyn FnMut(&[usize]) -> f64) -> Vec<Vec<usize>> {
    let mut known: BTreeMap<Vec<usize>, f64> = BTreeMap::new();
    let mut cost = |group: &[usize]| {
        let mut key = group.to_vec();
        key.sort_unstable();
        *known.entry(key.clone()).or_insert_with(|| cost(&key))
    };
    let mut groups = if factor < 2 {
        (0..heads).map(|head| vec![head]).collect()
    } else if factor == 2 && heads <= MAX_EXACT {
        pairs(heads, &mut cost)
    } else {
        let neighbours = (0..heads).collect::<Vec<_>>().chunks(factor).map(<[usize]>::to_vec).collect();
        let starts = [neighbours, greedy(heads, factor, &mut cost)];
        let mut best: Option<(f64, Vec<Vec<usize>>)> = None;
        for start in starts {
            let groups = swapped(start, &mut cost);
            let total = groups.iter().map(|group| cost(group)).sum::<f64>();
            if best.as_ref().is_none_or(|(least, _)| total < *least) {
                best = Some((total, groups));
            }
        }
        best.map(|(_, groups)| groups).unwrap_or_default()
    };
    groups.iter_mut().for_each(|group| group.sort_unstable());
    groups.sort();
    groups
}

/// The cheapest pairing: over sets of heads that are paired already, the first head left takes each other one.
fn pairs(heads: usize, cost: &mut dyn FnMut(&[usize]) -> f64) -> Vec<Vec<usize>> {
    let full = (1usize << heads) - 1;
    let mut best = vec![f64::INFINITY; full + 1];
    let mut taken = vec![(0, 0); full + 1];
    best[0] = 0.0;
    for set in 0..full {
        if best[set].is_infinite() {
            continue;
        }
        let first = (!set).trailing_zeros() as usize;
        for second in (first + 1..heads).filter(|second| set >> second & 1 == 0) {
            let next = set | 1 << first | 1 << second;
            let total = best[set] + cost(&[first, second]);
            if total < best[next] {
                (best[next], taken[next]) = (total, (first, second));
            }
        }
    }
    let mut groups = Vec::new();
    let mut set = full;
    while set != 0 {
        let (first, second) = taken[set];
        groups.push(vec![first, second]);
        let rest = set & !(1 << first | 1 << second);
        if rest == set {
            // Costs that are no numbers: nothing is better than anything.
            return (0..heads / 2).map(|pair| vec![2 * pair, 2 * pair + 1]).collect();
        }
        set = rest;
    }
    groups
}

fn greedy(heads: usize, factor: usize, cost: &mut dyn FnMut(&[usize]) -> f64) -> Vec<Vec<usize>> {
    let mut left: Vec<usize> = (0..heads).collect();
    let mut groups = Vec::new();
    while !left.is_empty() {
        let mut group = vec![left.remove(0)];
        while group.len() < factor && !left.is_empty() {
            let mut with = |&at: &usize| {
                let candidate: Vec<usize> = group.iter().copied().chain([left[at]]).collect();
                cost(&candidate)
            };
            let costs: Vec<f64> = (0..left.len()).collect::<Vec<_>>().iter().map(&mut with).collect();
            let best = (0..left.len()).min_by(|&a, &b| costs[a].total_cmp(&costs[b])).unwrap_or(0);
            group.push(left.remove(best));
        }
        groups.push(group);
    }
    groups
}

/// Heads of two groups change places while that helps.
fn swapped(mut groups: Vec<Vec<usize>>, cost: &mut dyn FnMut(&[usize]) -> f64) -> Vec<Vec<usize>> {
    /// Passes over all pairs at most.
    const PASSES: usize = 8;
    for _ in 0..PASSES {
        let mut is_better = false;
        for a in 0..groups.len() {
            for b in a + 1..groups.len() {
                let (left, right) = (groups[a].len(), groups[b].len());
                for (i, j) in (0..left).flat_map(|i| (0..right).map(move |j| (i, j))) {
                    let before = cost(&groups[a]) + cost(&groups[b]);
                    let (mut left, mut right) = (groups[a].clone(), groups[b].clone());
                    std::mem::swap(&mut left[i], &mut right[j]);
                    if cost(&left) + cost(&right) < before * (1.0 - 1e-9) {
                        (groups[a], groups[b]) = (left, right);
                        is_better = true;
                    }
                }
            }
        }
        if !is_better {
            break;
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_heads_come_together() {
        // Heads lie on a line; a group costs the distances within it.
        let places = [0.0f64, 5.0, 9.0, 0.1, 9.2, 5.3, 2.0, 2.1];
        let mut cost = |group: &[usize]| -> f64 {
            let pairs = group.iter().flat_map(|&a| group.iter().map(move |&b| (a, b)));
            pairs.map(|(a, b)| (places[a] - places[b]).abs()).sum()
        };
        assert_eq!(group(8, 2, &mut cost), [vec![0, 3], vec![1, 5], vec![2, 4], vec![6, 7]]);
        assert_eq!(group(8, 4, &mut cost), [vec![0, 3, 6, 7], vec![1, 2, 4, 5]]);
        assert_eq!(group(4, 1, &mut cost).len(), 4);
        assert_eq!(group(4, 2, &mut |_| f64::NAN).len(), 2);
    }
}
