//! Every instruction between two parties and a dealer: results, bytes and rounds, what travels, and what happens when
//! somebody misbehaves.

mod build;
mod functions;
mod hostile;
mod leakage;
mod linear;
mod order;
mod products;
mod run;
mod tapped;
mod under_mask;
mod whole;

use marill_program::Suite;

const SUITE: Suite = Suite::Dealer;
