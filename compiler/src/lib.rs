//! Compiles ONNX transformer graphs into two-party secure programs.
//!
//! [`compile`] is the pipeline; the modules stand in the order in which data flows through them.

pub mod diagnostic;
pub mod request;

pub mod approximation;
pub mod machine;

pub mod bundle;
pub mod import;
pub mod ir;
pub mod lower;
pub mod normalise;
pub mod ownership;
pub mod precision;
pub mod published;
pub mod rewrite;
pub mod schedule;

pub mod calibrate;
pub mod explain;
pub mod export;
pub mod fitting;
pub mod merge_heads;
pub mod report;
pub mod splitmix;
pub mod text_samples;

pub use approximation::Approximate;
pub use diagnostic::{Bug, Diagnostic, Problem};
pub use marill_plaintext::npz;
pub use request::{Numerics, Request, Reveal, Weights};

use std::path::Path;

use marill_program::ValidProgram;

/// What compiling yields.
#[derive(Debug)]
pub struct Compiled {
    /// The graph before it was rewritten: what the model says.
    pub reference: ir::Graph,
    /// The graph that was lowered; constants still lie in the model's file.
    pub graph: ir::Graph,
    /// The program and the constants it names.
    pub lowered: lower::Lowered,
    /// The program, checked.
    pub program: ValidProgram,
    /// What is known of every weight.
    pub weights: Vec<published::WeightRow>,
    /// What the e-graph did.
    pub rewrites: rewrite::RewriteReport,
    /// How far activations may be from what the model says.
    pub approximate: Approximate,
    /// How values became integers.
    pub numerics: Numerics,
}

/// A model whose values have owners, to be rewritten and lowered.
#[derive(Debug)]
pub struct Model {
    /// Its file's name.
    pub name: String,
    /// What it says.
    pub graph: ir::Graph,
    /// What is known of every weight.
    pub weights: Vec<published::WeightRow>,
}

/// A step of [`compile`], in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// ONNX to a graph.
    Import,
    /// To the preferred form.
    Normalise,
    /// Which weights the base model has.
    Published,
    /// Who may know what.
    Ownership,
    /// The cheapest equal graph.
    Rewrite,
    /// Bits and bounds, instructions, ring widths, rounds.
    Lower,
}

/// What an observer of [`compile_observed`] is shown.
#[derive(Debug)]
pub enum Progress<'a> {
    /// A stage begins.
    Begins(Stage),
    /// A stage before `Lower` has made this graph.
    Made(Stage, &'a ir::Graph),
    /// The program is run on samples.
    Checks,
}

/// Compiles the model at `path`.
///
/// # Errors
/// What is wrong with the model or the request, at its node.
pub fn compile(path: &Path, request: &Request) -> Result<Compiled, Diagnostic> {
    compile_observed(path, request, &mut |_| {})
}

/// As [`compile`], and shows its progress to `observer`.
///
/// # Errors
/// As [`compile`].
pub fn compile_observed(
    path: &Path,
    request: &Request,
    observer: &mut dyn FnMut(Progress<'_>),
) -> Result<Compiled, Diagnostic> {
    read(path, request, observer)?.compile(request, observer)
}

/// The stages that do not depend on the network, the suite, numerics or approximations.
///
/// # Errors
/// As [`compile`].
pub fn read(
    path: &Path,
    request: &Request,
    observer: &mut dyn FnMut(Progress<'_>),
) -> Result<Model, Diagnostic> {
    observer(Progress::Begins(Stage::Import));
    let graph = verified(import::import(path, &import::ImportRequest { dims: request.dims.clone() })?)?;
    observer(Progress::Made(Stage::Import, &graph));
    observer(Progress::Begins(Stage::Normalise));
    let graph = verified(normalise::normalise(graph)?)?;
    observer(Progress::Made(Stage::Normalise, &graph));
    observer(Progress::Begins(Stage::Published));
    let base = request.weights.base.as_deref().map(|path| base_graph(path, request)).transpose()?;
    let initializers = import::initializers(path)?;
    let (graph, weights) = published::publish(graph, base.as_ref(), &request.weights, &initializers)?;
    let graph = verified(graph)?;
    observer(Progress::Made(Stage::Published, &graph));
    observer(Progress::Begins(Stage::Ownership));
    let mut graph = request.with_reveals(graph)?;
    ownership::assign(&mut graph, &request.owners)?;
    let graph = verified(graph)?;
    observer(Progress::Made(Stage::Ownership, &graph));
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(Model { name, graph, weights })
}

impl Model {
    /// The stages from rewriting on.
    ///
    /// # Errors
    /// As [`compile`].
    pub fn compile(
        &self,
        request: &Request,
        observer: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Compiled, Diagnostic> {
        observer(Progress::Begins(Stage::Rewrite));
        let options = rewrite::RewriteOptions { cost: request.cost_model(), ..Default::default() };
        let (graph, rewrites) = rewrite::rewrite(self.graph.clone(), &options)?;
        let graph = verified(graph)?;
        observer(Progress::Made(Stage::Rewrite, &graph));
        observer(Progress::Begins(Stage::Lower));
        let (lowered, program) = lower_and_check(&graph, request, &self.name)?;
        Ok(Compiled {
            reference: self.graph.clone(),
            graph: verified(report::with_encodings(&graph, &lowered, &program))?,
            lowered,
            program,
            weights: self.weights.clone(),
            rewrites,
            approximate: request.approximate,
            numerics: request.numerics,
        })
    }
}

/// The base model in the preferred form, at the same sizes.
fn base_graph(path: &Path, request: &Request) -> Result<ir::Graph, Diagnostic> {
    verified(normalise::normalise(import::import(
        path,
        &import::ImportRequest { dims: request.dims.clone() },
    )?)?)
}

/// `graph`, whose invariants hold: a stage that broke them is a fault of the compiler.
fn verified(graph: ir::Graph) -> Result<ir::Graph, Diagnostic> {
    match ir::verify::verify(&graph) {
        Ok(()) => Ok(graph),
        Err(bug) => Err(Diagnostic::new("", Problem::Bug(Box::new(bug)))),
    }
}

/// The last stage alone: `graph`, whose values have owners, as a program called `name`.
///
/// # Errors
/// An operation that cannot be computed on shared values, at its node.
pub fn lower_and_check(
    graph: &ir::Graph,
    request: &Request,
    name: &str,
) -> Result<(lower::Lowered, ValidProgram), Diagnostic> {
    request.numerics.validate()?;
    let precision = precision::Precision::new(request.numerics, request.suite);
    let lowered = lower::lower(graph, precision, request.cost_model(), name, &request.dims)?;
    let bug = |bug: Bug| Diagnostic::new("", Problem::Bug(Box::new(bug)));
    let program =
        ValidProgram::new(lowered.program.clone()).map_err(|source| bug(Bug::Program { source }))?;
    marill_program::flow::check(&lowered.program).map_err(|source| bug(Bug::Flow { source }))?;
    Ok((lowered, program))
}
