//! What a program is expected to take, by phase and by graph node, and what the compiler did to get there.
//!
//! The same shape, without the operators, is what a run reports of itself.

use std::collections::BTreeMap;

use marill_program::cost::{self, Bytes, Cost, PhaseCost};
use marill_program::plan::{Batch, Plan};
use marill_program::two_party::work::Work;
use marill_program::work::work;
use marill_program::{Form, Network, Owner as Party, Suite, ValidProgram};
use serde::Serialize;

use crate::Compiled;
use crate::approximation::Approximate;
use crate::calibrate::{Agreement, Calibration};
use crate::ir::Graph;
use crate::lower::Lowered;
use crate::machine::{self, Machines};
use crate::precision::headroom::GroupHeadroom;
use crate::published::WeightRow;
use crate::request::Numerics;
use crate::rewrite::certificate::Certificate;

/// One number for each process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ByProcess {
    /// The client's.
    pub client: u64,
    /// The server's.
    pub server: u64,
    /// The dealer's.
    pub dealer: u64,
}

/// A phase's traffic and time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PhaseReport {
    /// Payload and headers that each process sends.
    pub bytes_sent: ByProcess,
    /// Payload and headers that each process receives.
    pub bytes_received: ByProcess,
    /// Exchanges.
    pub rounds: u64,
    /// Time that the network and the work take.
    pub seconds: f64,
}

/// What one graph node costs. Message headers are left out: messages are shared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OperatorRow {
    /// The node's operation and name.
    pub group: String,
    /// Bytes online, both ways.
    pub online_bytes: u64,
    /// Rounds that it adds. A round that several nodes share is the first one's.
    pub rounds: u64,
    /// Bytes of correlations.
    pub preprocess_bytes: u64,
    /// Bytes that pass once per pair and model: masked weights.
    pub setup_bytes: u64,
    /// Ring multiply-adds of each party, at most.
    pub ring_products: u64,
}

/// A rewrite rule that found something.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RewriteRow {
    /// The rule.
    pub rule: String,
    /// Forms that it found.
    pub count: usize,
    /// Estimated seconds of a run that would be lost without it.
    pub saves_s: f64,
}

/// What the samples were and how the ring arithmetic did on them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SampleReport {
    /// Whether they were made up.
    pub is_synthetic: bool,
    /// How many.
    pub count: usize,
    /// The exact ring arithmetic against f32, by output.
    pub outputs: Vec<Agreement>,
}

/// The report of a compilation. Headroom and samples depend on private weights.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Who makes the correlations.
    pub suite: Suite,
    /// Sizes of symbolic dimensions.
    pub dims: BTreeMap<String, u64>,
    /// The network that times are predicted for.
    pub network: Network,
    /// How far activations may be from what the model says.
    pub approximate: Approximate,
    /// How values became integers, asked for or taken for the samples.
    pub numerics: Numerics,
    /// Once per pair and model.
    pub setup: PhaseReport,
    /// Per run, before the inputs are known.
    pub preprocess: PhaseReport,
    /// Per run, with the inputs.
    pub online: PhaseReport,
    /// By graph node, in program order; those that cost nothing are left out.
    pub operators: Vec<OperatorRow>,
    /// Use of the rings, tightest first.
    pub headroom: Vec<GroupHeadroom>,
    /// What is known of every weight.
    pub weights: Vec<WeightRow>,
    /// Public constants before the outputs, and whether they may be moved behind the reveal.
    pub certificates: Vec<Certificate>,
    /// Rules that found new forms.
    pub rewrites: Vec<RewriteRow>,
    /// What the samples showed.
    pub samples: SampleReport,
}

/// Number of constants and of their elements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConstantCount {
    /// Tensors.
    pub tensors: usize,
    /// Elements in all of them.
    pub elements: usize,
}

impl PhaseReport {
    /// Bytes on all links.
    pub fn total_bytes(&self) -> u64 {
        self.bytes_sent.client + self.bytes_sent.server + self.bytes_sent.dealer
    }
}

/// What a run of a program takes, phase by phase.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// Once per pair and model.
    pub setup: PhaseReport,
    /// Per run, before the inputs are known.
    pub preprocess: PhaseReport,
    /// Per run, with the inputs.
    pub online: PhaseReport,
}

impl Prediction {
    /// Time of all phases, one after the other.
    pub fn total_seconds(&self) -> f64 {
        self.setup.seconds + self.preprocess.seconds + self.online.seconds
    }

    /// Bytes of all phases.
    pub fn total_bytes(&self) -> u64 {
        self.setup.total_bytes() + self.preprocess.total_bytes() + self.online.total_bytes()
    }
}

/// What a run of `program` takes, with times on `network`: on one machine over loopback, else each process on its own.
pub fn predict(program: &ValidProgram, suite: Suite, network: Network) -> Prediction {
    let machines = if network == Network::LOOPBACK { Machines::One } else { Machines::Own };
    predict_on(program, suite, network, machines)
}

/// As [`predict`], for given machines.
pub fn predict_on(program: &ValidProgram, suite: Suite, network: Network, machines: Machines) -> Prediction {
    let cost = cost::cost(program, program.encode().len() as u64, suite);
    let work = work(program);
    let total = |cost: &PhaseCost| cost.bytes.total();
    let setup_s = match suite {
        Suite::Dealer => machines.bytes_s(total(&cost.setup), machine::SETUP_BYTE_S),
        Suite::TwoParty => total(&cost.setup) as f64 * machine::ENCRYPTED_BYTE_S,
    };
    let preprocess_s = match suite {
        Suite::Dealer => {
            machines.products_s(&work.preprocess)
                + machines.bytes_s(total(&cost.preprocess), machine::PREPROCESS_BYTE_S)
        }
        Suite::TwoParty => Machines::gates_s(&Work::new(program)),
    };
    let online_s =
        machines.products_s(&work.online) + machines.bytes_s(total(&cost.online), machine::ONLINE_BYTE_S);
    Prediction {
        // What comes of encryption, or of a dealer's work, streams while the rest is made.
        setup: phase(&cost.setup, network, |network_s| match suite {
            Suite::Dealer => network_s + setup_s,
            Suite::TwoParty => network_s.max(setup_s),
        }),
        preprocess: phase(&cost.preprocess, network, |network_s| match suite {
            Suite::Dealer => network_s.max(preprocess_s),
            Suite::TwoParty => network_s + preprocess_s,
        }),
        online: phase(&cost.online, network, |network_s| network_s + online_s),
    }
}

/// The report of `compiled`, with times on `network`.
pub fn report(
    compiled: &Compiled,
    calibration: &Calibration,
    samples: usize,
    is_synthetic: bool,
    suite: Suite,
    network: Network,
) -> Report {
    let program = &compiled.program;
    let cost = cost::cost(program, program.encode().len() as u64, suite);
    let predicted = predict(program, suite, network);
    let mut headroom = calibration.check.headroom.clone();
    headroom.sort_by(|a, b| a.spare_bits.total_cmp(&b.spare_bits));
    let dims = program.program().dims.iter();
    let fired = compiled.rewrites.fired.iter();
    Report {
        suite,
        dims: dims.map(|dim| (dim.name.clone(), dim.size)).collect(),
        network,
        approximate: compiled.approximate,
        numerics: compiled.numerics,
        setup: predicted.setup,
        preprocess: predicted.preprocess,
        online: predicted.online,
        operators: operators(program, &cost),
        headroom,
        weights: compiled.weights.clone(),
        certificates: compiled.rewrites.certificates.clone(),
        rewrites: fired
            .map(|rule| RewriteRow { rule: rule.name.to_owned(), count: rule.count, saves_s: rule.saves_s })
            .collect(),
        samples: SampleReport { is_synthetic, count: samples, outputs: calibration.agreements.clone() },
    }
}

/// Half a round trip for each round, in which both ends send at once, and the busiest direction of any process; `seconds`
/// adds what is computed.
fn phase(cost: &PhaseCost, network: Network, seconds: impl Fn(f64) -> f64) -> PhaseReport {
    let Bytes {
        client_to_server,
        server_to_client,
        client_to_dealer,
        server_to_dealer,
        dealer_to_client,
        dealer_to_server,
    } = cost.bytes;
    let bytes_sent = ByProcess {
        client: cost.bytes.client_sent(),
        server: cost.bytes.server_sent(),
        dealer: cost.bytes.dealer_sent(),
    };
    let bytes_received = ByProcess {
        client: server_to_client + dealer_to_client,
        server: client_to_server + dealer_to_server,
        dealer: client_to_dealer + server_to_dealer,
    };
    let busiest = [bytes_sent, bytes_received].iter().map(|b| b.client.max(b.server).max(b.dealer)).max();
    let bits = busiest.unwrap_or(0) as f64 * 8.0;
    let network_s = cost.rounds as f64 * network.rtt_seconds / 2.0 + bits / network.bandwidth_bits_per_second;
    PhaseReport { bytes_sent, bytes_received, rounds: cost.rounds, seconds: seconds(network_s) }
}

/// What every graph node costs; those that cost nothing are left out.
pub fn operator_rows(program: &ValidProgram, suite: Suite) -> Vec<OperatorRow> {
    operators(program, &cost::cost(program, program.encode().len() as u64, suite))
}

/// Costs by group; sums over the rows are the totals, headers and greetings aside.
fn operators(program: &ValidProgram, cost: &Cost) -> Vec<OperatorRow> {
    let names = &program.program().groups;
    let mut rows: BTreeMap<u32, OperatorRow> = BTreeMap::new();
    let mut row = |at: usize, change: &mut dyn FnMut(&mut OperatorRow)| {
        let group = program.program().instructions[at].group;
        change(rows.entry(group).or_insert_with(|| OperatorRow {
            group: names.get(group as usize).cloned().unwrap_or_default(),
            online_bytes: 0,
            rounds: 0,
            preprocess_bytes: 0,
            setup_bytes: 0,
            ring_products: 0,
        }));
    };
    for (at, instruction) in cost.instructions.iter().enumerate() {
        row(at, &mut |row| {
            row.online_bytes += instruction.online.total();
            row.preprocess_bytes += instruction.preprocess.total();
            row.setup_bytes += instruction.setup.total();
            row.ring_products += instruction.ring_products;
        });
    }
    for batch in Plan::new(program).online {
        let Batch::Round(opens) = batch else { continue };
        let first =
            opens.into_iter().min_by_key(|&at| (program.program().instructions[at as usize].group, at));
        if let Some(first) = first {
            row(first as usize, &mut |row| row.rounds += 1);
        }
    }
    let is_free = |row: &OperatorRow| {
        row.online_bytes + row.rounds + row.preprocess_bytes + row.setup_bytes + row.ring_products == 0
    };
    rows.into_values().filter(|row| !is_free(row)).collect()
}

/// Constants of the program that `owner` holds.
pub fn constants(compiled: &Compiled, owner: Party) -> ConstantCount {
    let mut count = ConstantCount::default();
    for at in 0..compiled.program.len() {
        if let (marill_program::Instruction::Constant(_), Form::Plain { owner: found, .. }) =
            (compiled.program.instruction(at), compiled.program.types()[at].form)
            && found == owner
        {
            count.tensors += 1;
            count.elements += compiled.program.types()[at].len();
        }
    }
    count
}

/// The graph with the encodings that the program gives its shared values.
pub fn with_encodings(graph: &Graph, lowered: &Lowered, program: &ValidProgram) -> Graph {
    let mut encoded = graph.clone();
    for (id, encoding) in lowered.encodings(program) {
        encoded.node_mut(id).facts.encoding = Some(encoding);
    }
    encoded
}
