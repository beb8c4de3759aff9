//! The rewrite stage through its front door.

mod equivalence;
mod models;
mod scale;
mod snapshots;
