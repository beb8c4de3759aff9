//! `marillc dump` and `marillc opt`: graphs and programs as text.

use std::fs;

use marill_compiler::ir::{self, Graph, TextOptions, verify};
use marill_compiler::report::with_encodings;
use marill_compiler::rewrite::{RewriteOptions, rewrite};
use marill_compiler::{Progress, Stage, compile_observed, lower_and_check, normalise, ownership};

use super::{DumpArgs, DumpStage, OptArgs, OptStage, emit};

const WITH_NAMES: TextOptions = TextOptions { names: true };

pub fn dump(args: &DumpArgs) -> anyhow::Result<()> {
    let wanted = match args.after {
        DumpStage::Import => Some(Stage::Import),
        DumpStage::Normalise => Some(Stage::Normalise),
        DumpStage::Published => Some(Stage::Published),
        DumpStage::Ownership => Some(Stage::Ownership),
        DumpStage::Rewrite => Some(Stage::Rewrite),
        DumpStage::Precision | DumpStage::Program => None,
    };
    let mut seen = None;
    let result = compile_observed(&args.model, &args.request.request(), &mut |progress| {
        if let Progress::Made(stage, graph) = progress
            && wanted == Some(stage)
        {
            seen = Some(ir::print(graph, WITH_NAMES));
        }
    });
    // A stage can be looked at although a later one fails.
    if let Some(text) = seen {
        return emit(&text);
    }
    let compiled = result?;
    match args.after {
        DumpStage::Precision => {
            let encoded = with_encodings(&compiled.graph, &compiled.lowered, &compiled.program);
            emit(&ir::print(&encoded, WITH_NAMES))
        }
        _ => emit(&compiled.program.to_string()),
    }
}

pub fn opt(args: &OptArgs) -> anyhow::Result<()> {
    let path = args.file.display();
    let text =
        fs::read_to_string(&args.file).map_err(|error| anyhow::anyhow!("cannot read {path}: {error}"))?;
    let graph = ir::parse(&text).map_err(|error| anyhow::anyhow!("{path} is not a graph: {error}"))?;
    verify(&graph).map_err(|bug| anyhow::anyhow!("{path} is not a valid graph: {bug}"))?;
    let request = args.request.request();
    let graph = match args.stage {
        OptStage::Normalise => normalise::normalise(graph)?,
        OptStage::Ownership => {
            let mut graph = graph;
            ownership::assign(&mut graph, &request.owners)?;
            graph
        }
        OptStage::Rewrite => {
            let options = RewriteOptions { cost: request.cost_model(), ..RewriteOptions::default() };
            rewrite(owned(graph)?, &options)?.0
        }
        OptStage::Precision => {
            let graph = owned(graph)?;
            let (lowered, program) = lower_and_check(&graph, &request, "")?;
            with_encodings(&graph, &lowered, &program)
        }
        OptStage::Program => {
            let (_, program) = lower_and_check(&owned(graph)?, &request, "")?;
            return emit(&program.to_string());
        }
    };
    emit(&ir::print(&graph, WITH_NAMES))
}

fn owned(graph: Graph) -> anyhow::Result<Graph> {
    if let Some(node) = graph.dag.node_weights().find(|node| node.facts.owner.is_none()) {
        anyhow::bail!("value \"{}\" has no owner, run --stage ownership before", node.name)
    }
    Ok(graph)
}
