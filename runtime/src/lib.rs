//! Runs Marill programs between two parties: the client (P0) and the server (P1), with an optional dealer that
//! makes correlations only.
//!
//! Nothing a peer or a user sends can panic here: every fault is a [`error::RunError`], sorted by who is at fault.
//!
//! A run goes [`session`] (agree, preprocess, run, reveal) -> [`correlation`] (masks and their products) ->
//! [`executor`] (rounds and memory) -> [`protocol`] (one file per functionality, on local data), over [`transport`].

pub mod bundle;
pub mod correlation;
pub mod error;
pub mod executor;
mod files;
pub mod inputs;
pub mod protocol;
pub mod report;
pub mod session;
pub mod sharing;
pub mod transport;
