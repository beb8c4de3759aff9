//! What is known about every class: its type, its owner, whether it is constant, and the value of a public scalar.

use egg::{Analysis, DidMerge, EGraph, Id};
use marill_plaintext::{DType, TensorType, infer};

use super::language::{Head, Term};
use crate::ir::Owner;

/// The e-graph of this stage.
pub type Classes = EGraph<Term, Known>;

/// Facts of one class.
#[derive(Clone, Debug, PartialEq)]
pub struct Fact {
    /// Element type and shape.
    pub ty: TensorType,
    /// Who may know it.
    pub owner: Owner,
    /// Whether it depends on constants alone.
    pub is_constant: bool,
    /// The value of a public f32 constant of one element. Private constants never have it.
    pub scalar: Option<f32>,
    /// Whether a product with this public constant (of rows with a matrix, by element with a vector) is certified to
    /// lose nothing.
    pub is_injective: bool,
}

/// Facts of the leaves, by number.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Facts of leaf 0, 1...
    pub leaves: Vec<Fact>,
}

impl Analysis<Term> for Known {
    type Data = Fact;

    fn make(classes: &mut Classes, term: &Term, _: Id) -> Fact {
        match &term.head {
            Head::Leaf(number) => classes.analysis.leaves[*number as usize].clone(),
            Head::Scalar(bits) => Fact {
                ty: TensorType { dtype: DType::F32, shape: Vec::new() },
                owner: Owner::Public,
                is_constant: true,
                scalar: Some(f32::from_bits(*bits)),
                is_injective: false,
            },
            Head::Apply(symbol) => {
                let operands = || term.operands.iter().map(|&id| &classes[id].data);
                let types: Vec<TensorType> = operands().map(|fact| fact.ty.clone()).collect();
                Fact {
                    ty: infer(symbol.op(), &types).expect("terms are checked before they are added"),
                    owner: Owner::of_result(symbol.op(), operands().map(|fact| fact.owner)),
                    is_constant: operands().all(|fact| fact.is_constant),
                    scalar: None,
                    is_injective: false,
                }
            }
        }
    }

    /// Of two ways to compute a value, what the better-known one tells holds for both.
    fn merge(&mut self, into: &mut Fact, from: Fact) -> DidMerge {
        debug_assert_eq!(into.ty, from.ty);
        let is_wider = into.owner != from.owner && into.owner.join(from.owner) == into.owner;
        let merged = Fact {
            ty: into.ty.clone(),
            owner: if is_wider { from.owner } else { into.owner },
            is_constant: into.is_constant || from.is_constant,
            scalar: into.scalar.or(from.scalar),
            is_injective: into.is_injective || from.is_injective,
        };
        let changed = DidMerge(merged != *into, merged != from);
        *into = merged;
        changed
    }
}
