//! The dealer suite: a third process that sees no data makes all correlations.
//!
//! It sends a fresh seed to each party and corrections to the server. The client's shares are its seed's streams; the
//! server's are what corrects them to the fields' values, which the dealer knows because it knows both seeds and so
//! every mask. It walks the program on masks only ([`make`]), and colludes with nobody.

pub mod fields;
pub mod make;
pub mod party;
pub mod stream;

pub use make::make;
pub use party::{ClientSource, Dealt, ServerSource};
