//! Every instruction between two parties who make the correlations themselves: the same programs and results as with a
//! dealer; and runs from stores.

#[path = "../online/build.rs"]
mod build;
#[path = "../online/functions.rs"]
mod functions;
mod leakage;
#[path = "../online/linear.rs"]
mod linear;
#[path = "../online/products.rs"]
mod products;
#[path = "../online/run.rs"]
mod run;
mod stored;
#[path = "../online/tapped.rs"]
mod tapped;
#[path = "../online/under_mask.rs"]
mod under_mask;
#[path = "../online/whole.rs"]
mod whole;

use marill_program::Suite;

const SUITE: Suite = Suite::TwoParty;
