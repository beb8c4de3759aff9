//! Runs Marill programs between two parties: the client (P0) and the server (P1), with an optional dealer that
//! makes correlations only.
//!
//! Nothing a peer or a user sends can panic here: every fault is a [`error::RunError`], sorted by who is at fault.

pub mod error;
pub mod transport;
