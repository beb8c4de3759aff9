//! How fast correlations are made and used: what one feed-forward layer and one softmax of a small GPT-2 at 128
//! tokens ask for, over memory, with the time of each phase and the bytes of each link.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use marill_plaintext::Tensor;
use marill_program::schema::*;
use marill_program::{Owner, Target, ValidProgram};
use marill_runtime::bundle::Bundle;
use marill_runtime::error::{Role, RunError};
use marill_runtime::session::{Stats, run_client, run_dealer, run_server};
use marill_runtime::transport::{Phase, memory_pair_between};

struct Builder(Program);

impl Builder {
    fn push(&mut self, instruction: Instruction) -> u32 {
        self.0.instructions.push(Step { instruction: Some(instruction), group: 0 });
        self.0.instructions.len() as u32 - 1
    }

    fn open(&mut self, arg: u32, to: Target, width: u32) -> u32 {
        self.push(Instruction::Open(Open { arg, to: to as i32, width }))
    }

    fn compare(&mut self, arg: u32, width: u32) -> u32 {
        let digits =
            Digits { arg, digit_bits: 4, thresholds: vec![-4096, 4096], low_bits: 0, width, lowest_bits: 0 };
        let digits = self.push(Instruction::Digits(digits));
        let opened = 2 * (width - 1).div_ceil(4) - 1;
        let opened = self.push(Instruction::OpenBits(OpenBits { arg: digits, width: opened }));
        self.push(Instruction::Compare(Compare { digits, opened }))
    }
}

fn program(tokens: usize, width: usize, hidden: usize, scores: usize) -> ValidProgram {
    let mut b = Builder(Program { version: VERSION, name: "rate".to_owned(), ..Program::default() });
    let input = |name: &str, ty: String| {
        Instruction::Input(Input { name: name.to_owned(), owner: Owner::Client as i32, ty })
    };
    let x = b.push(input("x", format!("f32[{tokens},{width}]")));
    let w =
        Constant { name: "w".to_owned(), owner: Owner::Server as i32, ty: format!("f32[{width},{hidden}]") };
    let w = b.push(Instruction::Constant(w));
    let weight = b.push(Instruction::Weight(Weight { arg: w, width: 40, frac: 12 }));
    let x = b.push(Instruction::Encode(Encode { arg: x, width: 40, frac: 12 }));
    let x = b.open(x, Target::Server, 40);
    let h = b.push(Instruction::MatMul(Product { a: x, b: weight, width: 40 }));
    let h = b.push(Instruction::Truncate(Truncate { arg: h, shift: 12 }));
    let h = b.open(h, Target::Both, 20);
    let series = b.push(Instruction::Fourier(Fourier {
        arg: h,
        period_bits: 16,
        constant: 0.0,
        cos: vec![0.1; 7],
        sin: vec![0.2; 7],
        entry_frac: 14,
        power_frac: 14,
        width: 34,
        window: 0.0,
    }));
    let outside = b.compare(h, 20);
    let s = b.push(input("s", format!("f32[{scores}]")));
    let s = b.push(Instruction::Encode(Encode { arg: s, width: 20, frac: 14 }));
    let s = b.open(s, Target::Both, 20);
    let exponentials = b.push(Instruction::Table(Table {
        arg: s,
        low_bits: 14,
        index_bits: 4,
        basis: Basis::Exponential as i32,
        degree: 0,
        coefficients: (0..16).map(|p| (f64::from(p) - 15.0).exp()).collect(),
        entry_frac: 16,
        power_frac: 16,
        exponent_log2: 0,
        width: 40,
    }));
    for (name, value) in [("series", series), ("exponentials", exponentials)] {
        let value = b.push(Instruction::Sum(Sum { arg: value, axis: 0 }));
        let reveal = Reveal { arg: value, to: Target::Client as i32, integer: false };
        let value = b.push(Instruction::Reveal(reveal));
        b.0.outputs.push(Output { name: name.to_owned(), value, to: Target::Client as i32 });
    }
    let _ = outside;
    ValidProgram::new(b.0).expect("the program is well typed")
}

fn report(stats: &Stats) {
    for phase in [Phase::Setup, Phase::Preprocess, Phase::Online] {
        let sent = stats.sent(phase).total();
        println!("{:7} {phase:10} {:6.3} s, sent {:10} bytes", stats.role, stats.phase(phase).seconds, sent);
    }
}

fn main() -> Result<(), RunError> {
    let (tokens, width, hidden, scores) = (128, 768, 3072, 12 * 128 * 128);
    let program = program(tokens, width, hidden, scores);
    let tensor = |shape: &[usize], value: f32| {
        Tensor::f32(shape, vec![value; shape.iter().product()]).expect("as many elements as the shape says")
    };
    let inputs = BTreeMap::from([
        ("x".to_owned(), tensor(&[tokens, width], 0.5)),
        ("s".to_owned(), tensor(&[scores], 3.25)),
    ]);
    let private = BTreeMap::from([("w".to_owned(), tensor(&[width, hidden], 0.01))]);
    let client_bundle = Bundle::in_memory(program.clone(), BTreeMap::new(), None);
    let server_bundle = Bundle::in_memory(program, BTreeMap::new(), Some(private));
    let idle = Duration::from_secs(60);
    let (c, s) = memory_pair_between(Role::Client, Role::Server, idle);
    let (cd, dc) = memory_pair_between(Role::Client, Role::Dealer, idle);
    let (sd, ds) = memory_pair_between(Role::Server, Role::Dealer, idle);
    thread::scope(|scope| {
        let client = scope.spawn(|| run_client(&client_bundle, inputs, c, Some(cd), &mut |_| {}));
        let server = scope.spawn(|| run_server(&server_bundle, BTreeMap::new(), s, Some(sd), &mut |_| {}));
        let dealer = run_dealer(None, dc, ds, &mut |_| {});
        let client = client.join().expect("the client does not panic")?;
        let server = server.join().expect("the server does not panic")?;
        for stats in [&client.1, &server.1, &dealer?] {
            report(stats);
        }
        println!("peak rss {:?} bytes", client.1.peak_rss_bytes);
        Ok(())
    })
}
