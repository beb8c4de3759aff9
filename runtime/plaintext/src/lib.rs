//! Clear-text tensors and the closed set of operations on them.
//!
//! One vocabulary serves the whole street: the compiler's graph, the segments of a program that a party computes
//! in the clear, and the float oracles of the tests. Data flows `op` (what) -> `shape` (what comes out) ->
//! `evaluate` (the numbers). [`npz`] brings tensors from files and back.

pub mod error;
pub mod evaluate;
pub mod npz;
pub mod op;
pub mod shape;
pub mod tensor;
pub mod text;

pub use error::OpError;
pub use evaluate::evaluate;
pub use op::{GeluForm, Op, Receiver};
pub use shape::{broadcast_shapes, infer};
pub use tensor::{DType, Tensor, TensorType};
