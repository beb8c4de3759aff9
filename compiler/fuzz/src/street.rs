//! The compiler's stages after import, for graphs that are small enough.

use std::collections::{BTreeMap, BTreeSet};

use marill_compiler::import::ImportRequest;
use marill_compiler::ir::{Graph, NodeKind, Owner, verify};
use marill_compiler::{Diagnostic, Problem, Request};
use marill_compiler::{lower_and_check, normalise, ownership, published, rewrite};
use marill_program::{Suite, ValidProgram};

/// Sizes of the symbolic dimensions that fixtures have.
pub fn import_request() -> ImportRequest {
    let names = ["batch", "batch_size", "sequence", "sequence_length", "seq", "b", "s"];
    ImportRequest { dims: names.iter().map(|name| ((*name).to_owned(), 2)).collect() }
}

/// Most nodes, and elements of all values together, of a graph that is compiled.
const MAX_NODES: usize = 48;
const MAX_ELEMENTS: usize = 1 << 13;

/// Whether compiling `graph` takes milliseconds.
pub fn is_small(graph: &Graph) -> bool {
    let elements = graph.dag.node_weights().map(|node| node.facts.ty.len());
    graph.dag.node_count() <= MAX_NODES && elements.fold(0, usize::saturating_add) <= MAX_ELEMENTS
}

/// Compiles `graph`, its inputs the client's and the server's by turns, for one suite.
///
/// # Errors
/// Whatever the compiler says of the graph.
///
/// # Panics
/// If what it says is that the compiler is wrong.
pub fn compile(graph: Graph, suite: Suite) -> Result<ValidProgram, Diagnostic> {
    let request = Request { owners: owners(&graph), suite, ..Request::default() };
    let result = stages(graph, &request);
    if let Err(Diagnostic { problem: Problem::Bug(bug), .. }) = &result {
        panic!("{bug}");
    }
    result
}

fn owners(graph: &Graph) -> BTreeMap<String, Owner> {
    let nodes = graph.inputs.iter().map(|&id| graph.node(id));
    let owned = nodes.enumerate().map(|(at, node)| {
        assert!(matches!(node.kind, NodeKind::Input), "an input of another kind");
        (node.name.clone(), if at % 2 == 0 { Owner::Client } else { Owner::Server })
    });
    owned.collect()
}

fn stages(graph: Graph, request: &Request) -> Result<ValidProgram, Diagnostic> {
    let graph = verified(normalise::normalise(graph)?);
    let (graph, _) = published::publish(graph, None, &request.weights, &BTreeSet::new())?;
    let mut graph = request.with_reveals(verified(graph))?;
    ownership::assign(&mut graph, &request.owners)?;
    let options = rewrite::RewriteOptions { cost: request.cost_model(), max_terms: 1000, max_iterations: 4 };
    let (graph, _) = rewrite::rewrite(verified(graph), &options)?;
    let (_, program) = lower_and_check(&verified(graph), request, "model")?;
    Ok(program)
}

fn verified(graph: Graph) -> Graph {
    if let Err(bug) = verify(&graph) {
        panic!("{bug}");
    }
    graph
}
