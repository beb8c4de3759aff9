//! Shared bits of masks, and what grows from them: the rounds before any sum.

use std::collections::BTreeMap;

use super::gates::{And, Engine, Side};
use super::planes::{Plane, planes_of};

/// The bits of one mask, of which each party has an additive part.
#[derive(Default)]
pub(super) struct MaskBits {
    lanes: usize,
    width: u32,
    /// This party's part.
    part: Vec<u64>,
    /// The lowest bit whose carry counts: what those below would carry is left out.
    start: u32,
    /// The highest bit into which a carry is needed.
    steps: u32,
    /// This party's shares of the carries into the bits above `start`.
    carries: Vec<Plane>,
    planes: Vec<Plane>,
}

impl MaskBits {
    fn adds(&self, i: u32) -> bool {
        (self.start..self.steps).contains(&i)
    }

    /// Shares of the carry into bit `i`; into bit `width` it says that the parts' sum leaves the ring.
    pub fn carry(&self, i: u32) -> Plane {
        let at = i.checked_sub(self.start + 1);
        at.and_then(|at| self.carries.get(at as usize)).cloned().unwrap_or_default()
    }

    /// Shares of bit `i` of the mask.
    pub fn bit(&self, i: u32) -> Plane {
        self.planes.get(i as usize).map(|plane| plane.xor(&self.carry(i))).unwrap_or_default()
    }
}

/// How planes grow, bit after bit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Growth {
    /// To the unit vector of the number that the bits write: entry `j` is 1 where it is `j`.
    Unit,
    /// To the products of all subsets: entry `S` is the product of the bits in `S`.
    Products,
}

struct Growing {
    growth: Growth,
    lanes: usize,
    bits: Vec<Plane>,
    entries: Vec<Plane>,
}

/// What is known of the masks and bits of some instructions.
pub(super) struct Segment {
    side: Side,
    masks: BTreeMap<u32, MaskBits>,
    grown: BTreeMap<(u32, u32), Growing>,
    products: BTreeMap<(u32, u32, u32), Plane>,
}

impl Segment {
    pub fn new(side: Side) -> Segment {
        Segment { side, masks: BTreeMap::new(), grown: BTreeMap::new(), products: BTreeMap::new() }
    }

    /// Asks for the carry into bit `step` of a mask and for all bits below, from `start` on: whoever starts lowest decides.
    pub fn need(
        &mut self,
        value: u32,
        (lanes, width): (usize, u32),
        (start, step): (u32, u32),
        part: impl FnOnce() -> Vec<u64>,
    ) {
        let mask = self.masks.entry(value).or_insert_with(|| MaskBits {
            lanes,
            width,
            start,
            part: part(),
            ..MaskBits::default()
        });
        mask.start = mask.start.min(start);
        mask.steps = mask.steps.max(step.min(width));
    }

    /// The bits of a mask that was asked for.
    pub fn mask(&self, value: u32) -> Option<&MaskBits> {
        self.masks.get(&value)
    }

    /// Adds both parties' parts bit by bit, all masks together: one round for each bit of the longest.
    pub fn add_parts<E: Engine>(&mut self, engine: &mut E) -> Result<(), E::Error> {
        for mask in self.masks.values_mut() {
            mask.planes = planes_of(&mask.part, 0, mask.width.min(64) as usize);
        }
        let longest = self.masks.values().map(|mask| mask.steps).max().unwrap_or(0);
        for i in 0..longest {
            let mut gates = Vec::new();
            for mask in self.masks.values().filter(|mask| mask.adds(i)) {
                // carry' = (a + carry)(b + carry) + carry, a the client's bit and b the server's.
                let (own, carry) = (&mask.planes[i as usize], mask.carry(i));
                let (bit, by) = match self.side {
                    Side::Client => (own.xor(&carry), carry),
                    Side::Server => (carry.clone(), own.xor(&carry)),
                };
                gates.push(And { lanes: mask.lanes, bit, by: vec![by] });
            }
            if gates.is_empty() {
                continue;
            }
            let made = engine.and(&gates)?;
            for (mask, product) in self.masks.values_mut().filter(|mask| mask.adds(i)).zip(made) {
                let carry = mask.carry(i);
                let product = product.into_iter().next().unwrap_or_default();
                mask.carries.push(product.xor(&carry));
            }
        }
        Ok(())
    }

    /// Lets planes grow from shared bits; `key` is a value or an instruction and a number of the caller's, and who comes
    /// with the same shares what grows.
    pub fn grow(&mut self, key: (u32, u32), growth: Growth, lanes: usize, bits: Vec<Plane>) {
        let one = match self.side {
            Side::Client => Plane::ones(lanes),
            Side::Server => Plane::default(),
        };
        self.grown.entry(key).or_insert(Growing { growth, lanes, bits, entries: vec![one] });
    }

    /// What has grown.
    pub fn entries(&self, key: (u32, u32)) -> &[Plane] {
        self.grown.get(&key).map_or(&[], |growing| &growing.entries)
    }

    /// Grows everything to its full size, all together: one round for each bit of the longest but the first.
    pub fn grow_all<E: Engine>(&mut self, engine: &mut E) -> Result<(), E::Error> {
        let longest = self.grown.values().map(|g| g.bits.len()).max().unwrap_or(0);
        for step in 0..longest {
            let mut gates = Vec::new();
            for g in self.grown.values().filter(|g| g.bits.len() > step) {
                // One entry of the product follows from the others: those of a unit vector add up to the bit, and the
                // empty subset's is the bit.
                let by = match g.growth {
                    Growth::Unit => &g.entries[..g.entries.len() - 1],
                    Growth::Products => &g.entries[1..],
                };
                gates.push(And { lanes: g.lanes, bit: g.bits[step].clone(), by: by.to_vec() });
            }
            gates.retain(|gate| !gate.by.is_empty());
            let mut made = if gates.is_empty() { Vec::new() } else { engine.and(&gates)? }.into_iter();
            for g in self.grown.values_mut().filter(|g| g.bits.len() > step) {
                let bit = &g.bits[step];
                let mut high = if g.entries.len() > 1 { made.next().unwrap_or_default() } else { Vec::new() };
                match g.growth {
                    Growth::Unit => {
                        let last = high.iter().fold(bit.clone(), |sum, plane| sum.xor(plane));
                        high.push(last);
                        g.entries.iter_mut().zip(&high).for_each(|(low, high)| low.xor_in(high));
                    }
                    Growth::Products => high.insert(0, bit.clone()),
                }
                g.entries.append(&mut high);
            }
        }
        Ok(())
    }

    /// Products of bits with strings of bits, in one round; the keys say by which [`Self::product`] finds them: the
    /// string's planes have consecutive last numbers.
    pub fn multiply<E: Engine>(
        &mut self,
        engine: &mut E,
        gates: Vec<((u32, u32), And)>,
    ) -> Result<(), E::Error> {
        let (keys, gates): (Vec<_>, Vec<_>) =
            gates.into_iter().filter(|(_, gate)| !gate.by.is_empty()).unzip();
        if gates.is_empty() {
            return Ok(());
        }
        let made = engine.and(&gates)?;
        for ((at, number), planes) in keys.into_iter().zip(made) {
            let numbered = planes.into_iter().enumerate();
            self.products.extend(numbered.map(|(i, plane)| ((at, number, i as u32), plane)));
        }
        Ok(())
    }

    /// One plane of a product.
    pub fn product(&self, key: (u32, u32), plane: u32) -> Plane {
        self.products.get(&(key.0, key.1, plane)).cloned().unwrap_or_default()
    }
}
