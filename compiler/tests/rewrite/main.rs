//! The rewrite stage through its front door.

mod models;
