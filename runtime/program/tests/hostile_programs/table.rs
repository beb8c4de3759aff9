//! Hostile programs, each with the error that names what is wrong with it.

use marill_program::flow::{FlowError, check};
use marill_program::schema::*;
use marill_program::{Owner, Target, ValidProgram};

use crate::build::{Builder, I};
use crate::honest::product;

use Owner::{Client, Public, Server};

/// A builder that already has inputs and constants of everybody: the client's prompt `x` and `ids`, the server's `s`,
/// the public `p` and `p_ids`; constants `w` and `keys` of the server, `gain` of both.
struct Start {
    b: Builder,
    x: u32,
    ids: u32,
    s: u32,
    p: u32,
    p_ids: u32,
    w: u32,
    keys: u32,
    gain: u32,
}

fn start() -> Start {
    let mut b = Builder::new();
    Start {
        x: b.input("x", Client, "f32[4]"),
        ids: b.input("ids", Client, "i64[4]"),
        s: b.input("s", Server, "f32[4]"),
        p: b.input("p", Public, "f32[4]"),
        p_ids: b.input("p_ids", Public, "i64[4]"),
        w: b.constant("w", Server, "f32[4]"),
        keys: b.constant("keys", Server, "i64[4]"),
        gain: b.constant("gain", Public, "f32[4]"),
        b,
    }
}

/// Whether validation, which asks other questions, refuses the program as well.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Validation {
    Refuses,
    Accepts,
}

use Validation::{Accepts, Refuses};

type Case = (&'static str, fn(&mut Start), fn(&FlowError) -> bool, Validation);

macro_rules! error {
    ($pattern:pat) => {
        |error| matches!(error, $pattern)
    };
}

/// Shares of the prompt, then whatever the program does with them.
fn prompt(t: &mut Start) -> u32 {
    t.b.shared(t.x)
}

/// The prompt under a mask, at both.
fn masked_prompt(t: &mut Start) -> u32 {
    let x = prompt(t);
    t.b.open(x, Target::Both)
}

const CASES: &[Case] = &[
    // Values disclosed without a declaration.
    (
        "the prompt revealed to the server on the side",
        |t| {
            let x = prompt(t);
            t.b.disclose(x, Target::Server);
        },
        error!(FlowError::UndeclaredReveal { to: Target::Server, .. }),
        Refuses,
    ),
    (
        "an output to the client whose reveal goes to both",
        |t| {
            let x = prompt(t);
            let y = t.b.disclose(x, Target::Both);
            t.b.output("y", y, Target::Client);
        },
        error!(FlowError::UndeclaredReveal { to: Target::Both, .. }),
        Refuses,
    ),
    (
        "an output to the client whose reveal goes to the server",
        |t| {
            let x = prompt(t);
            let y = t.b.disclose(x, Target::Server);
            t.b.output("y", y, Target::Client);
        },
        error!(FlowError::UndeclaredReveal { to: Target::Server, .. }),
        Refuses,
    ),
    (
        "a second reveal of what is an output already",
        |t| {
            let x = prompt(t);
            t.b.reveal("y", x, Target::Client);
            t.b.disclose(x, Target::Server);
        },
        error!(FlowError::UndeclaredReveal { .. }),
        Refuses,
    ),
    (
        "a reveal to a party that there is not",
        |t| {
            let x = prompt(t);
            t.b.push(I::Reveal(Reveal { arg: x, to: 3, integer: false }));
        },
        error!(FlowError::Party { field: "to", found: 3, .. }),
        Refuses,
    ),
    // Clear values where they are not known.
    (
        "the prompt and a weight added in the clear",
        |t| {
            t.b.plain("add", &[t.x, t.w]);
        },
        error!(FlowError::OtherParty { known_to: Server, needed_by: Client, .. }),
        Refuses,
    ),
    (
        "a look-up of the prompt by keys of the server in the clear",
        |t| {
            t.b.plain("gather{axis=0}", &[t.x, t.keys]);
        },
        error!(FlowError::OtherParty { .. }),
        Refuses,
    ),
    (
        "a reveal to the server mixed with the prompt in the clear",
        |t| {
            let x = prompt(t);
            let seen = t.b.reveal("seen", x, Target::Server);
            let mixed = t.b.plain("add", &[seen, t.x]);
            t.b.output("mixed", mixed, Target::Server);
        },
        error!(FlowError::OtherParty { .. }),
        Refuses,
    ),
    (
        "shares times a factor that the server alone knows",
        |t| {
            let (x, w) = (prompt(t), t.b.encode(t.w));
            t.b.mul(x, w);
        },
        error!(FlowError::PrivateFactor { known_to: Server, .. }),
        Refuses,
    ),
    (
        "shares times a factor that the client alone knows",
        |t| {
            let (factor, w) = (t.b.encode(t.x), t.b.shared(t.w));
            t.b.mul(factor, w);
        },
        error!(FlowError::PrivateFactor { known_to: Client, .. }),
        Refuses,
    ),
    (
        "a masked value times a matrix that the server alone knows",
        |t| {
            let (x, w) = (masked_prompt(t), t.b.encode(t.w));
            t.b.push(I::MatMul(Product { a: x, b: w, width: 40 }));
        },
        error!(FlowError::PrivateFactor { known_to: Server, .. }),
        Refuses,
    ),
    (
        "a masked value plus the prompt",
        |t| {
            let (x, other) = (masked_prompt(t), t.b.encode(t.x));
            t.b.push(I::Add(Binary { a: x, b: other }));
        },
        error!(FlowError::PrivateFactor { known_to: Client, .. }),
        Refuses,
    ),
    (
        "a value opened to the server truncated as if opened to both",
        |t| {
            let x = prompt(t);
            let x = t.b.open(x, Target::Server);
            t.b.push(I::Truncate(Truncate { arg: x, shift: 4 }));
        },
        error!(FlowError::Opened { opened_to: Target::Server, .. }),
        Refuses,
    ),
    // Outputs.
    (
        "the prompt itself as an output to the server",
        |t| t.b.output("x", t.x, Target::Server),
        error!(FlowError::OutputUnknown { to: Target::Server, .. }),
        Refuses,
    ),
    (
        "the prompt itself as an output to both",
        |t| t.b.output("x", t.x, Target::Both),
        error!(FlowError::OutputUnknown { to: Target::Both, .. }),
        Refuses,
    ),
    (
        "a private constant as an output to the client",
        |t| t.b.output("w", t.w, Target::Client),
        error!(FlowError::OutputUnknown { to: Target::Client, .. }),
        Refuses,
    ),
    (
        "shares as an output",
        |t| {
            let x = prompt(t);
            t.b.output("x", x, Target::Server);
        },
        error!(FlowError::OutputUnknown { .. }),
        Refuses,
    ),
    (
        "ring elements of the client as an output",
        |t| {
            let x = t.b.encode(t.x);
            t.b.output("x", x, Target::Client);
        },
        error!(FlowError::OutputUnknown { .. }),
        Refuses,
    ),
    (
        "an output of a value that there is not",
        |t| t.b.output("x", 1000, Target::Server),
        error!(FlowError::OutputUndefined { value: 1000, .. }),
        Refuses,
    ),
    (
        "an output to a party that there is not",
        |t| t.b.program.outputs.push(Output { name: "p".to_owned(), value: t.p, to: 7 }),
        error!(FlowError::OutputParty { found: 7, .. }),
        Refuses,
    ),
    (
        "two outputs of one name, of which the user means one",
        |t| {
            let x = prompt(t);
            let total = t.b.push(I::Sum(Sum { arg: x, axis: 0 }));
            t.b.reveal("score", total, Target::Server);
            t.b.reveal("score", x, Target::Server);
        },
        error!(FlowError::SameName { what: "outputs", .. }),
        Refuses,
    ),
    (
        "an output whose name erases its line",
        |t| t.b.output("y\r\u{1b}[2Ky", t.x, Target::Client),
        error!(FlowError::Name { what: "outputs", number: 0, .. }),
        Accepts,
    ),
    (
        "an output whose name reads backwards",
        |t| t.b.output("\u{202e}stigol", t.x, Target::Client),
        error!(FlowError::Name { .. }),
        Accepts,
    ),
    (
        "outputs whose names look alike",
        |t| {
            t.b.output("logits", t.x, Target::Client);
            t.b.output("logits\u{200b}", t.x, Target::Client);
        },
        error!(FlowError::Name { number: 1, .. }),
        Accepts,
    ),
    (
        "an output without a name",
        |t| t.b.output("", t.x, Target::Client),
        error!(FlowError::Name { .. }),
        Accepts,
    ),
    (
        "an input whose name ends in a blank",
        |t| {
            t.b.input("x ", Server, "f32[4]");
        },
        error!(FlowError::Name { what: "inputs", .. }),
        Accepts,
    ),
    (
        "two inputs of one name",
        |t| {
            t.b.input("x", Public, "f32[4]");
        },
        error!(FlowError::SameName { what: "inputs", .. }),
        Refuses,
    ),
    // What goes out under masks, and to whom.
    (
        "the prompt opened as a clear tensor",
        |t| {
            t.b.open(t.x, Target::Server);
        },
        error!(FlowError::Form { .. }),
        Refuses,
    ),
    (
        "an opened value opened again",
        |t| {
            let x = prompt(t);
            let opened = t.b.open(x, Target::Both);
            t.b.open(opened, Target::Server);
        },
        error!(FlowError::Form { .. }),
        Refuses,
    ),
    (
        "an opening to a party that there is not",
        |t| {
            let x = prompt(t);
            t.b.push(I::Open(Open { arg: x, to: -1, width: 40 }));
        },
        error!(FlowError::Party { field: "to", found: -1, .. }),
        Refuses,
    ),
    (
        "a value opened to the server used as if opened to both",
        |t| {
            let x = prompt(t);
            let opened = t.b.open(x, Target::Server);
            t.b.lift(opened);
        },
        error!(FlowError::Opened { opened_to: Target::Server, needs: Target::Both, .. }),
        Refuses,
    ),
    (
        "a value opened to the client used as if opened to both",
        |t| {
            let w = t.b.shared(t.w);
            let opened = t.b.open(w, Target::Client);
            t.b.push(I::Square(Square { arg: opened, width: 40 }));
        },
        error!(FlowError::Opened { opened_to: Target::Client, needs: Target::Both, .. }),
        Refuses,
    ),
    (
        "one factor opened to both, the other to the server",
        |t| {
            let x = prompt(t);
            let (one, other) = (t.b.open(x, Target::Both), t.b.open(x, Target::Server));
            t.b.mul(one, other);
        },
        error!(FlowError::Opened { .. }),
        Refuses,
    ),
    (
        "a weight times a value that the client has too",
        |t| {
            let (x, w) = (prompt(t), t.b.weight(t.w));
            let opened = t.b.open(x, Target::Both);
            t.b.mul(opened, w);
        },
        error!(FlowError::Opened { opened_to: Target::Both, needs: Target::Server, .. }),
        Refuses,
    ),
    (
        "a weight times a value that the client alone has",
        |t| {
            let (x, w) = (prompt(t), t.b.weight(t.w));
            let opened = t.b.open(x, Target::Client);
            t.b.mul(opened, w);
        },
        error!(FlowError::Opened { opened_to: Target::Client, needs: Target::Server, .. }),
        Refuses,
    ),
    (
        "values opened to different parties joined",
        |t| {
            let x = prompt(t);
            let (one, other) = (t.b.open(x, Target::Both), t.b.open(x, Target::Server));
            t.b.movement("concat{axis=0}", &[one, other]);
        },
        error!(FlowError::MixedForms { .. }),
        Refuses,
    ),
    (
        "ring elements of both parties joined",
        |t| {
            let (x, w) = (t.b.encode(t.x), t.b.encode(t.w));
            t.b.movement("concat{axis=0}", &[x, w]);
        },
        error!(FlowError::MixedForms { .. }),
        Refuses,
    ),
    (
        "an opened value revealed",
        |t| {
            let x = prompt(t);
            let opened = t.b.open(x, Target::Both);
            t.b.reveal("x", opened, Target::Server);
        },
        error!(FlowError::Form { .. }),
        Refuses,
    ),
    (
        "a weight revealed",
        |t| {
            let w = t.b.weight(t.w);
            t.b.reveal("w", w, Target::Client);
        },
        error!(FlowError::Form { .. }),
        Refuses,
    ),
    // Weights, whose masks serve several runs.
    (
        "the prompt as a weight",
        |t| {
            t.b.weight(t.x);
        },
        error!(FlowError::ChangingWeight { depends_on: "an input of the client", .. }),
        Refuses,
    ),
    (
        "an input of the server as a weight",
        |t| {
            t.b.weight(t.s);
        },
        error!(FlowError::ChangingWeight { depends_on: "an input of the server", .. }),
        Refuses,
    ),
    (
        "a constant moved by a public input as a weight",
        |t| {
            let moved = t.b.plain("add", &[t.w, t.p]);
            t.b.weight(moved);
        },
        error!(FlowError::ChangingWeight { depends_on: "a public input", .. }),
        Refuses,
    ),
    (
        "a revealed value as a weight",
        |t| {
            let w = t.b.shared(t.w);
            let seen = t.b.reveal("seen", w, Target::Server);
            t.b.weight(seen);
        },
        error!(FlowError::ChangingWeight { depends_on: "a revealed value", .. }),
        Refuses,
    ),
    (
        "a public constant as a weight",
        |t| {
            t.b.weight(t.gain);
        },
        error!(FlowError::Form { .. }),
        Refuses,
    ),
    // Positions, which the dealer is told.
    (
        "shares moved to positions of the prompt",
        |t| {
            let x = prompt(t);
            t.b.movement("gather{axis=0}", &[x, t.ids]);
        },
        error!(FlowError::SecretPositions { depends_on: "an input of the client", .. }),
        Refuses,
    ),
    (
        "a masked value moved to positions of the server",
        |t| {
            let x = prompt(t);
            let opened = t.b.open(x, Target::Both);
            t.b.movement("gather{axis=0}", &[opened, t.keys]);
        },
        error!(FlowError::SecretPositions { depends_on: "private values", .. }),
        Refuses,
    ),
    (
        "shares put at positions of a public input",
        |t| {
            let x = prompt(t);
            t.b.place(x, t.p_ids);
        },
        error!(FlowError::SecretPositions { depends_on: "a public input", .. }),
        Refuses,
    ),
    (
        "shares put at positions that were revealed",
        |t| {
            let x = t.b.integers(t.ids);
            let x = t.b.share(x);
            let seen = t.b.push(I::Reveal(Reveal { arg: x, to: Target::Both as i32, integer: true }));
            t.b.output("seen", seen, Target::Both);
            t.b.place(x, seen);
        },
        error!(FlowError::SecretPositions { depends_on: "an input of the client", .. }),
        Refuses,
    ),
    (
        "shares moved by what is no movement",
        |t| {
            let x = prompt(t);
            t.b.movement("relu", &[x]);
        },
        error!(FlowError::Movement { .. }),
        Refuses,
    ),
    (
        "a movement of nothing",
        |t| {
            t.b.movement("concat{axis=0}", &[]);
        },
        error!(FlowError::Movement { .. }),
        Refuses,
    ),
    (
        "a clear tensor moved as shares",
        |t| {
            t.b.movement("reshape{shape=[4]}", &[t.x]);
        },
        error!(FlowError::Form { .. }),
        Refuses,
    ),
    // Failures that tell: whether a number fits its ring shows in how a run ends.
    (
        "a reveal that must fit a ring",
        |t| {
            let x = prompt(t);
            let seen = t.b.reveal("seen", x, Target::Client);
            let seen = t.b.encode(seen);
            t.b.share(seen);
        },
        error!(FlowError::FedBack { .. }),
        Refuses,
    ),
    (
        "a number from a reveal that must fit a ring",
        |t| {
            let x = prompt(t);
            let seen = t.b.reveal("seen", x, Target::Both);
            let mixed = t.b.plain("mul", &[seen, t.x]);
            t.b.encode(mixed);
        },
        error!(FlowError::FedBack { .. }),
        Refuses,
    ),
    // Forms for which there is no protocol.
    (
        "a comparison with the bits of another",
        |t| {
            let x = prompt(t);
            let x = t.b.open(x, Target::Both);
            let (one, other) = (t.b.digits(x), t.b.digits(x));
            let opened = t.b.open_bits(other, 9);
            t.b.push(I::Compare(Compare { digits: one, opened }));
        },
        error!(FlowError::OtherBits { .. }),
        Accepts,
    ),
    (
        "a comparison of what are no digits",
        |t| {
            let x = prompt(t);
            let x = t.b.open(x, Target::Both);
            let table = BitTable { arg: x, low_bits: 4, index_bits: 2, tables: vec![1, 2] };
            let bits = t.b.push(I::BitTable(table));
            let opened = t.b.open_bits(bits, 1);
            t.b.push(I::Compare(Compare { digits: bits, opened }));
        },
        error!(FlowError::OtherBits { .. }),
        Accepts,
    ),
    (
        "shares times shares",
        |t| {
            let x = prompt(t);
            t.b.mul(x, x);
        },
        error!(FlowError::Form { .. }),
        Refuses,
    ),
    (
        "a weight times a weight",
        |t| {
            let w = t.b.weight(t.w);
            t.b.mul(w, w);
        },
        error!(FlowError::Form { .. }),
        Refuses,
    ),
    (
        "a sum of what each party knows, without shares",
        |t| {
            let (x, w) = (t.b.encode(t.x), t.b.encode(t.w));
            t.b.add(x, w);
        },
        error!(FlowError::Form { .. }),
        Refuses,
    ),
    (
        "bits that nobody opened",
        |t| {
            let x = prompt(t);
            let x = t.b.open(x, Target::Both);
            let digits = t.b.digits(x);
            t.b.bit(digits);
        },
        error!(FlowError::Form { .. }),
        Refuses,
    ),
    (
        "shared bits revealed",
        |t| {
            let x = prompt(t);
            let x = t.b.open(x, Target::Both);
            let digits = t.b.digits(x);
            t.b.reveal("bits", digits, Target::Server);
        },
        error!(FlowError::Form { .. }),
        Refuses,
    ),
    (
        "a constant of the client",
        |t| {
            t.b.constant("mine", Client, "f32[4]");
        },
        error!(FlowError::ClientConstant { .. }),
        Refuses,
    ),
    (
        "an input of nobody",
        |t| {
            t.b.push(I::Input(Input { name: "z".to_owned(), owner: 9, ty: "f32[4]".to_owned() }));
        },
        error!(FlowError::Party { field: "owner", found: 9, .. }),
        Refuses,
    ),
    (
        "an instruction that uses itself",
        |t| {
            let at = t.b.program.instructions.len() as u32;
            t.b.share(at);
        },
        error!(FlowError::Undefined { .. }),
        Refuses,
    ),
    (
        "an instruction from a later version",
        |t| t.b.program.instructions.push(Step::default()),
        error!(FlowError::Unknown { .. }),
        Refuses,
    ),
];

#[test]
fn hostile_programs_are_refused_by_what_is_wrong_with_them() {
    assert!(CASES.len() >= 50);
    for (name, write, expected, validation) in CASES {
        let mut t = start();
        check(&t.b.program).unwrap();
        write(&mut t);
        let error = check(&t.b.program).expect_err(name);
        assert!(expected(&error), "{name}: {error:?}");
        let text = error.to_string();
        assert!(!text.contains(['\n', '\r', '\u{1b}', '\u{202e}']), "{name}: {text}");
        let found = if ValidProgram::new(t.b.program).is_ok() { Accepts } else { Refuses };
        assert_eq!(found, *validation, "{name}");
    }
}

/// Twice the same value, or parts of it: masks are numbered by instruction, so this is sound.
#[test]
fn openings_of_one_value_have_masks_of_their_own() {
    let mut b = product();
    let x = b.shared(0);
    for _ in 0..3 {
        let opened = b.open(x, Target::Both);
        let moved = b.movement("tile{repeats=[2,1]}", &[opened]);
        let wide = b.lift(moved);
        b.open(wide, Target::Server);
    }
    check(&b.program).unwrap();
    ValidProgram::new(b.program).unwrap();
}

#[test]
fn random_bytes_are_refused_or_sound_but_never_a_panic() {
    use prost::Message;
    let whole = crate::honest::everything().program.encode_to_vec();
    for at in 0..whole.len() {
        for flip in [1u8, 0x10, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            if let Ok(program) = Program::decode(bytes.as_slice()) {
                let _ = check(&program);
            }
        }
    }
}
