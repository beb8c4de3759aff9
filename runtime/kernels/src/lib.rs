//! Local arithmetic of the runtime: ring matrix products, bit packing, bit tricks, pseudo-random streams, and the
//! block work of oblivious transfer.
//!
//! Every function is deterministic and knows nothing of shares or peers. Ring elements are `u64` words; a ring
//! `Z_2^k` with `k < 64` lives in the low `k` bits, and [`bits`] says how to get back there.

// Vector instructions need raw loads and stores. Each vector path has a portable twin that it is tested against.
#![allow(unsafe_code)]

pub mod bits;
pub mod blocks;
mod cipher;
pub mod elements;
pub mod functions;
pub mod ggm;
pub mod lpn;
pub mod matmul;
pub mod memory;
pub mod pack;
pub mod prg;
pub mod ring_vole;
pub mod rlwe;
pub mod threads;
pub mod transpose;
pub mod vole;

pub use blocks::Block;
pub use matmul::{MatShape, RingElement, matmul, matmul_accumulate};
pub use prg::{Prg, Seed};
