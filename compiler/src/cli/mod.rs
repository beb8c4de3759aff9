//! The command line: what is asked, handed to the library, and what it answers, printed.

mod compare;
mod compile;
mod dump;
mod explain;
mod merge_heads;
mod print;
mod simulate;

use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use marill_compiler::ir::Owner;
use marill_compiler::{Approximate, Numerics, Request, Reveal, Weights};
use marill_program::{Network, Suite};

/// Compiles an ONNX transformer into a program that a client and a server run without showing each other their data.
#[derive(Debug, Parser)]
#[command(name = "marillc", version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    compile: CompileArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Prints the graph or program after a stage
    Dump(DumpArgs),
    /// Runs one stage on a graph in text form and prints the result
    Opt(OptArgs),
    /// Shows what compiled models cost, side by side
    Compare(CompareArgs),
    /// Tells where every operation of a compiled model runs and why, what each party learns and what it costs
    Explain(ExplainArgs),
    /// Runs a compiled model's exact ring arithmetic in this process, without cryptography
    Simulate(SimulateArgs),
    /// Writes a model of fewer, wider heads to fine-tune from: less softmax, no parameter dropped
    MergeHeads(merge_heads::MergeHeadsArgs),
}

#[derive(Debug, Args)]
struct CompileArgs {
    // Required unless there is a subcommand, hence optional to the type.
    /// The model
    #[arg(value_name = "MODEL.onnx", required = true)]
    model: Option<PathBuf>,
    /// Directory to write OUT/client, OUT/server and OUT/report.json to
    #[arg(short, long, value_name = "OUT", required = true)]
    out: Option<PathBuf>,
    #[command(flatten)]
    request: RequestArgs,
    /// Sample inputs to check the program on: an npz file for each, with arrays named like the inputs, or a text
    #[arg(long, value_name = "X.npz|TEXT")]
    calibrate: Vec<PathBuf>,
    /// What splits a text into tokens [default: tokenizer.json beside the model]
    #[arg(long, value_name = "TOKENIZER.json", requires = "calibrate")]
    tokenizer: Option<PathBuf>,
    /// Largest error of an output on the samples, in exact ring arithmetic against f32
    #[arg(long, value_name = "E", value_parser = parse_error, conflicts_with = "skip_check")]
    max_error: Option<f64>,
    /// Do not run the program on samples: values beyond its bounds are then found by nobody
    #[arg(long, conflicts_with = "calibrate")]
    skip_check: bool,
    /// Write the program and the report but no weights, which is quick for the largest models: explain and compare tell
    /// what it costs, nothing can run. Without samples
    #[arg(long, conflicts_with_all = ["calibrate", "max_error"])]
    cost_only: bool,
    /// Print the predicted figures as JSON, and nothing else, to standard output
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct RequestArgs {
    /// Size of a symbolic dimension
    #[arg(long = "dim", value_name = "NAME=N", value_parser = parse_dim)]
    dims: Vec<(String, usize)>,
    /// Who has an input: client (unless said otherwise), server or public
    #[arg(long = "owner", value_name = "INPUT=OWNER", value_parser = parse_owner)]
    owners: Vec<(String, Owner)>,
    /// Who learns an output: client (unless said otherwise), server or both; with :argmax, as in logits=client:argmax,
    /// only the index of the largest element along the last axis
    #[arg(long = "reveal", value_name = "OUTPUT=RECEIVER", value_parser = parse_reveal)]
    reveals: Vec<(String, Reveal)>,
    /// The published model that this one was fine-tuned from: weights that it has are public
    #[arg(long = "public", value_name = "BASE.onnx")]
    base: Option<PathBuf>,
    /// Weights that are the server's, by initializer name with * and ?; without --public and --public-weights, all
    /// others are public
    #[arg(long, value_name = "PATTERN")]
    private: Vec<String>,
    /// Weights that are public, by initializer name with * and ?
    #[arg(long, value_name = "PATTERN")]
    public_weights: Vec<String>,
    /// Largest relative error with which the difference from a public weight is taken as a product of thin private
    /// matrices; 0 for never
    #[arg(long, value_name = "T", default_value_t = Weights::RANK_TOLERANCE)]
    rank_tolerance: f64,
    /// Fraction bits of weights and of what they are multiplied with
    #[arg(long, value_name = "F", default_value_t = Numerics::default().frac_bits,
          value_parser = bits(&Numerics::FRAC_BITS))]
    frac_bits: u32,
    /// Outputs and what is computed of normed values are below 2^R in magnitude, other bounds follow [default: 7, or
    /// what the samples need]
    #[arg(long, value_name = "R", value_parser = bits(&Numerics::RANGE_BITS))]
    range_bits: Option<u32>,
    /// Hidden states are below 2^H in magnitude [default: 7 or R, or what the samples need]
    #[arg(long, value_name = "H", value_parser = bits(&Numerics::HIDDEN_BITS))]
    hidden_bits: Option<u32>,
    /// Who makes the correlations that the program is chosen for; it runs with either
    #[arg(long, value_name = "SUITE", default_value = "two-party")]
    suite: SuiteName,
    /// The network that the program is chosen and times are predicted for: loopback, lan, wan, or bandwidth and round
    /// trip as in 200Mbit,40ms
    #[arg(long, value_name = "NETWORK", default_value = "lan")]
    network: Network,
    /// How far activations may be from what the model says [default: exact, or with --max-error the cheapest that keeps it]
    #[arg(long, value_name = "LEVEL")]
    approximate: Option<Level>,
}

#[derive(Debug, Args)]
struct DumpArgs {
    /// The model
    #[arg(value_name = "MODEL.onnx")]
    model: PathBuf,
    /// The last stage to run
    #[arg(long, value_name = "STAGE")]
    after: DumpStage,
    #[command(flatten)]
    request: RequestArgs,
}

#[derive(Debug, Args)]
struct OptArgs {
    /// The graph, as `marillc dump` prints it
    #[arg(value_name = "FILE.ir")]
    file: PathBuf,
    /// The stage to run
    #[arg(long, value_name = "STAGE")]
    stage: OptStage,
    #[command(flatten)]
    request: RequestArgs,
}

#[derive(Debug, Args)]
struct CompareArgs {
    /// Directories that compiling wrote; the first is what the others are compared with
    #[arg(value_name = "OUT", required = true)]
    bundles: Vec<PathBuf>,
    /// Networks that times are predicted for
    #[arg(long, value_name = "NETWORK", default_values = ["lan", "wan"])]
    network: Vec<Network>,
    /// Predict for all processes on one machine, as `marill demo` runs them, whatever the network
    #[arg(long)]
    one_machine: bool,
    /// Who makes the correlations
    #[arg(long, value_name = "SUITE", default_value = "two-party")]
    suite: SuiteName,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ExplainArgs {
    /// The directory that compiling wrote
    #[arg(value_name = "OUT")]
    bundle: PathBuf,
    /// Who makes the correlations
    #[arg(long, value_name = "SUITE", default_value = "two-party")]
    suite: SuiteName,
    /// List every tensor: who has it, its ring and fraction bits, and what the samples used of them
    #[arg(long)]
    tensors: bool,
    /// Print JSON, tensors included
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct SimulateArgs {
    /// The directory that compiling wrote
    #[arg(value_name = "OUT")]
    bundle: PathBuf,
    /// Arrays named like the inputs
    #[arg(long, value_name = "X.npz")]
    input: PathBuf,
    /// Where to write the outputs
    #[arg(long, value_name = "Y.npz")]
    output: Option<PathBuf>,
    /// Outputs to compare with, arrays named like the outputs
    #[arg(long, value_name = "R.npz")]
    reference: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Level {
    /// To within 2e-4, which fixed point hides
    Exact,
    /// To within 4e-3
    Balanced,
    /// GELU is x^2 / 8 + x / 4 + 1 / 2, for models that were fine-tuned so
    Quad,
}

impl From<Level> for Approximate {
    fn from(level: Level) -> Approximate {
        match level {
            Level::Exact => Approximate::Exact,
            Level::Balanced => Approximate::Balanced,
            Level::Quad => Approximate::Quad,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SuiteName {
    /// The two parties between them
    TwoParty,
    /// A third process that sees no data
    Dealer,
}

impl From<SuiteName> for Suite {
    fn from(name: SuiteName) -> Suite {
        match name {
            SuiteName::TwoParty => Suite::TwoParty,
            SuiteName::Dealer => Suite::Dealer,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DumpStage {
    /// ONNX as a graph
    Import,
    /// One preferred form
    Normalise,
    /// Which weights the base model has
    Published,
    /// Who may know each value
    Ownership,
    /// The cheapest equal graph
    Rewrite,
    /// The same with the encodings of shared values
    Precision,
    /// Instructions in their rounds
    #[value(alias = "schedule", alias = "lower")]
    Program,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OptStage {
    /// One preferred form
    Normalise,
    /// Who may know each value
    Ownership,
    /// The cheapest equal graph, of one whose values have owners
    Rewrite,
    /// The encodings of shared values, of a graph whose values have owners
    Precision,
    /// Instructions in their rounds, of a graph whose values have owners
    #[value(alias = "schedule", alias = "lower")]
    Program,
}

impl RequestArgs {
    fn request(&self) -> Request {
        Request {
            dims: self.dims.iter().cloned().collect(),
            owners: self.owners.iter().cloned().collect(),
            reveals: self.reveals.iter().cloned().collect(),
            weights: Weights {
                base: self.base.clone(),
                private: self.private.clone(),
                public: self.public_weights.clone(),
                rank_tolerance: self.rank_tolerance,
            },
            numerics: self.numerics(),
            suite: self.suite.into(),
            network: self.network,
            approximate: self.approximate.map_or(Approximate::Exact, Level::into),
        }
    }
}

impl RequestArgs {
    fn numerics(&self) -> Numerics {
        let usual = Numerics::default();
        let range_bits = self.range_bits.unwrap_or(usual.range_bits);
        let hidden_bits = self.hidden_bits.unwrap_or(range_bits);
        Numerics { frac_bits: self.frac_bits, range_bits, hidden_bits }
    }
}

fn bits(allowed: &RangeInclusive<u32>) -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(i64::from(*allowed.start())..=i64::from(*allowed.end()))
}

/// Does what was asked.
///
/// # Errors
/// One text for the user.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    match (cli.command, &cli.compile.model, &cli.compile.out) {
        (Some(Command::Dump(args)), ..) => dump::dump(&args),
        (Some(Command::Opt(args)), ..) => dump::opt(&args),
        (Some(Command::Compare(args)), ..) => compare::compare(&args),
        (Some(Command::Explain(args)), ..) => explain::explain(&args),
        (Some(Command::Simulate(args)), ..) => simulate::simulate(&args),
        (Some(Command::MergeHeads(args)), ..) => merge_heads::merge_heads(&args),
        (None, Some(model), Some(out)) => compile::compile(model, out, &cli.compile),
        (None, ..) => anyhow::bail!("nothing to do, try --help"),
    }
}

/// Splits at the last `=`: names may have one, values have none.
fn name_and_value<'t>(text: &'t str, form: &str) -> Result<(&'t str, &'t str), String> {
    match text.rsplit_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name, value)),
        _ => Err(format!("expected is {form}")),
    }
}

fn parse_dim(text: &str) -> Result<(String, usize), String> {
    let (name, value) = name_and_value(text, "NAME=N")?;
    match value.parse::<usize>() {
        Ok(size) => Ok((name.to_owned(), size)),
        Err(_) => Err(format!("the size \"{value}\" is not a number")),
    }
}

fn parse_owner(text: &str) -> Result<(String, Owner), String> {
    let (name, value) = name_and_value(text, "INPUT=client, INPUT=server or INPUT=public")?;
    let owner = match value {
        "client" => Owner::Client,
        "server" => Owner::Server,
        "public" => Owner::Public,
        _ => return Err(format!("\"{value}\" owns nothing, expected is client, server or public")),
    };
    Ok((name.to_owned(), owner))
}

fn parse_reveal(text: &str) -> Result<(String, Reveal), String> {
    let (name, value) = name_and_value(text, "OUTPUT=client, OUTPUT=server or OUTPUT=both")?;
    let (value, argmax) = match value.strip_suffix(":argmax") {
        Some(receiver) => (receiver, true),
        None => (value, false),
    };
    let to = match value {
        "client" => Owner::Client,
        "server" => Owner::Server,
        "both" => Owner::Public,
        _ => return Err(format!("\"{value}\" cannot learn an output, expected is client, server or both")),
    };
    Ok((name.to_owned(), Reveal { to, argmax }))
}

fn parse_error(text: &str) -> Result<f64, String> {
    let error = text.parse().ok().filter(|error: &f64| error.is_finite() && *error > 0.0);
    error.ok_or_else(|| format!("\"{text}\" is no error, expected is a number above 0 such as 0.01"))
}

/// Prints to standard output. That its reader has gone, as in `| head`, is no error.
fn emit(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn warn(text: &str) {
    // Nobody is left to tell if this fails.
    let _ = writeln!(io::stderr(), "warning: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn pairs_split_at_the_last_sign() {
        assert_eq!(parse_dim("a=b=3"), Ok(("a=b".to_owned(), 3)));
        assert_eq!(parse_dim("past=0"), Ok(("past".to_owned(), 0)));
        assert_eq!(parse_owner("x=public"), Ok(("x".to_owned(), Owner::Public)));
        let both = Reveal { to: Owner::Public, argmax: false };
        assert_eq!(parse_reveal("y=both"), Ok(("y".to_owned(), both)));
        let index = Reveal { to: Owner::Client, argmax: true };
        assert_eq!(parse_reveal("y=client:argmax"), Ok(("y".to_owned(), index)));
        for bad in ["", "x", "=3", "x=", "x=-1", "x=1.5"] {
            assert!(parse_dim(bad).is_err(), "{bad}");
        }
        assert!(parse_owner("x=both").is_err() && parse_reveal("y=public").is_err());
    }
}
