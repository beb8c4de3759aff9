//! `marill`: runs compiled programs between two parties.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
