//! The two-party suite: client and server make all correlations between them.
//!
//! Each draws its own part of every mask, so masks cost nothing. What is a function of both parts is made of
//! correlated oblivious transfers ([`ot`]) in the gates ([`gates`]) of the recipe in `marill_program::two_party`, and
//! large matrix products by homomorphic encryption ([`he`]). There is no third party whom anybody has to trust.

mod digits;
pub mod gates;
pub mod he;
pub mod keys;
pub mod make;
pub mod ot;
pub mod setup;
pub mod source;

pub use source::TwoPartySource;
