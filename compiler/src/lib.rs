//! Compiles ONNX transformer graphs into two-party secure programs.
//!
//! [`compile`] is the pipeline; the modules stand in the order in which data flows through them.

pub mod diagnostic;
pub mod request;

pub mod bundle;
pub mod import;
pub mod ir;
pub mod lower;
pub mod normalise;
pub mod ownership;
pub mod precision;
pub mod rewrite;
pub mod schedule;


pub use diagnostic::{Bug, Diagnostic, Problem};
pub use marill_plaintext::npz;
pub use request::{Numerics, Request};

use std::path::Path;

use marill_program::ValidProgram;

/// What compiling yields.
#[derive(Debug)]
pub struct Compiled {
    /// The graph that was lowered; constants still lie in the model's file.
    pub graph: ir::Graph,
    /// The program and the constants it names.
    pub lowered: lower::Lowered,
    /// The program, checked.
    pub program: ValidProgram,
    /// What the e-graph did.
    pub rewrites: rewrite::RewriteReport,
}

/// Compiles the model at `path`.
///
/// # Errors
/// What is wrong with the model or the request, at its node.
pub fn compile(path: &Path, request: &Request) -> Result<Compiled, Diagnostic> {
    let graph = import::import(path, &import::ImportRequest { dims: request.dims.clone() })?;
    let graph = normalise::normalise(graph)?;
    let mut graph = request.with_reveals(graph)?;
    ownership::assign(&mut graph, &request.owners)?;
    let (graph, rewrites) = rewrite::rewrite(graph, &rewrite::RewriteOptions::default())?;
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let precision = precision::Precision::new(request.numerics);
    let lowered = lower::lower(&graph, precision, &name, &request.dims)?;
    let program = ValidProgram::new(lowered.program.clone())
        .map_err(|source| Diagnostic::new("", Problem::Bug(Box::new(Bug::Program { source }))))?;
    Ok(Compiled { graph, lowered, program, rewrites })
}
