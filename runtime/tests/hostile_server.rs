//! A server that ships a program to read the prompt, against the `marill` binary: nobody hears from the client.
#![cfg(unix)]

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output};

use marill_plaintext::{Tensor, npz};
use marill_program::schema::{self, *};
use marill_program::{Owner, Target};
use marill_runtime::bundle::{PRIVATE_FILE, PROGRAM_FILE, PUBLIC_FILE};
use prost::Message;
use safetensors::tensor::{Dtype, TensorView, serialize};

use Instruction as I;

#[derive(Default)]
struct Writer {
    program: Program,
}

impl Writer {
    fn push(&mut self, instruction: I) -> u32 {
        self.program.instructions.push(Step { instruction: Some(instruction), group: 0 });
        self.program.instructions.len() as u32 - 1
    }

    fn input(&mut self, name: &str, owner: Owner) -> u32 {
        self.push(I::Input(Input { name: name.to_owned(), owner: owner as i32, ty: "f32[1,4]".to_owned() }))
    }

    fn shared(&mut self, arg: u32) -> u32 {
        let arg = self.push(I::Encode(Encode { arg, width: 40, frac: 10 }));
        self.push(I::Share(Share { arg }))
    }

    fn reveal(&mut self, name: &str, arg: u32, to: Target) {
        let value = self.push(I::Reveal(Reveal { arg, to: to as i32, integer: false }));
        self.program.outputs.push(schema::Output { name: name.to_owned(), value, to: to as i32 });
    }
}

/// `y = x w` to the client, then what a hostile server adds: it is given the client's input `x` and its shares, and the
/// weight `w`.
fn program(owner: Owner, add: impl FnOnce(&mut Writer, [u32; 3])) -> Program {
    let mut p = Writer::default();
    (p.program.version, p.program.name) = (VERSION, "product".to_owned());
    let x = p.input("x", owner);
    let w = Constant { name: "w".to_owned(), owner: Owner::Server as i32, ty: "f32[4,2]".to_owned() };
    let w = p.push(I::Constant(w));
    let weight = p.push(I::Weight(Weight { arg: w, width: 40, frac: 10 }));
    let shared = p.shared(x);
    let opened = p.push(I::Open(Open { arg: shared, to: Target::Server as i32, width: 40 }));
    let y = p.push(I::MatMul(Product { a: opened, b: weight, width: 40 }));
    p.reveal("y", y, Target::Client);
    add(&mut p, [x, shared, w]);
    p.program
}

struct Home {
    directory: tempfile::TempDir,
}

impl Home {
    fn new(program: &Program) -> Home {
        let home = Home { directory: tempfile::tempdir().unwrap() };
        let none: Vec<(&str, TensorView<'_>)> = Vec::new();
        for party in ["client", "server"] {
            fs::create_dir(home.at(party)).unwrap();
            fs::write(home.at(party).join(PROGRAM_FILE), program.encode_to_vec()).unwrap();
            fs::write(home.at(party).join(PUBLIC_FILE), serialize(none.clone(), None).unwrap()).unwrap();
        }
        let w: Vec<u8> =
            [1.0f32, -1.0, 2.0, 0.5, 0.25, -4.0, 3.0, 0.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F32, vec![4, 2], &w).unwrap();
        fs::write(home.at("server").join(PRIVATE_FILE), serialize([("w", view)], None).unwrap()).unwrap();
        let x = Tensor::f32([1, 4], vec![1.0, 2.0, 4.0, -1.0]).unwrap();
        npz::write(&home.at("x.npz"), &BTreeMap::from([("x".to_owned(), x)])).unwrap();
        home
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs `marill`; words that begin with `@` are files of this home.
    fn marill(&self, words: &str) -> Output {
        let word = |word: &str| match word.strip_prefix('@') {
            Some(name) => self.at(name).to_str().unwrap().to_owned(),
            None => word.to_owned(),
        };
        Command::new(env!("CARGO_BIN_EXE_marill")).args(words.split_whitespace().map(word)).output().unwrap()
    }
}

fn failed(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(!text.contains('\u{1b}'), "{text:?}");
    text
}

/// A listener, and whether anybody has called it.
struct Ear(TcpListener);

impl Ear {
    fn new() -> Ear {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Ear(listener)
    }

    fn address(&self) -> String {
        self.0.local_addr().unwrap().to_string()
    }

    fn was_called(&self) -> bool {
        match self.0.accept() {
            Ok(_) => true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => panic!("{error}"),
        }
    }
}

/// The client against two listeners: what it says, and whether either was called.
fn run(home: &Home, more: &str) -> (String, bool) {
    let (server, dealer) = (Ear::new(), Ear::new());
    let output = home.marill(&format!(
        "run @client --suite dealer --connect {} --dealer {} --insecure-plaintext --timeout 0.3 --patience 0.3 --input \
         @x.npz {more}",
        server.address(),
        dealer.address()
    ));
    (failed(&output), server.was_called() | dealer.was_called())
}

type Hostile = (&'static str, Owner, fn(&mut Writer, [u32; 3]), &'static [&'static str]);

const HOSTILE: &[Hostile] = &[
    (
        "declares the prompt as an output to the server",
        Owner::Client,
        |p, [_, shared, _]| p.reveal("label", shared, Target::Server),
        &[
            "the client does not agree",
            "output 'label' goes to server",
            "depend on x",
            "--allow-reveal label",
        ],
    ),
    (
        "declares it as an output to both",
        Owner::Client,
        |p, [_, shared, _]| p.reveal("label", shared, Target::Both),
        &["output 'label' goes to both", "--allow-reveal label"],
    ),
    (
        "reveals the prompt on the side",
        Owner::Client,
        |p, [_, shared, _]| {
            p.push(I::Reveal(Reveal { arg: shared, to: Target::Server as i32, integer: false }));
        },
        &["the program is not valid", "reveals a value to"],
    ),
    ("calls the prompt public", Owner::Public, |_, _| {}, &["input 'x' is public", "--allow-public x"]),
    (
        "asks the prompt of the server",
        Owner::Server,
        |_, _| {},
        &["input x: the program takes it from the server, not from the client"],
    ),
    (
        "hides the name of what it reveals",
        Owner::Client,
        |p, [_, shared, _]| p.reveal("y\u{1b}[2K\rlogits", shared, Target::Server),
        &["the program is not valid", "outputs number 1 has the name"],
    ),
    (
        "reveals two things by one name",
        Owner::Client,
        |p, [_, shared, _]| p.reveal("y", shared, Target::Server),
        &["the program is not valid", "two outputs are named 'y'"],
    ),
    (
        "looks whether a number of the prompt is below 2",
        Owner::Client,
        |p, [x, ..]| {
            let narrow = p.push(I::Encode(Encode { arg: x, width: 2, frac: 0 }));
            p.push(I::Share(Share { arg: narrow }));
        },
        &["input x: element 1 is 2, the program takes -2 to 1"],
    ),
];

#[test]
fn no_hostile_program_brings_a_client_to_call() {
    for (what, owner, add, expected) in HOSTILE {
        let (text, called) = run(&Home::new(&program(*owner, add)), "");
        for part in *expected {
            assert!(text.contains(part), "{what}: \"{part}\" is not in: {text}");
        }
        assert!(!called, "{what}: the client called");
    }
    // What is declared and allowed is run.
    let program = program(Owner::Public, |p, [_, shared, _]| p.reveal("label", shared, Target::Server));
    let (home, allowed) = (Home::new(&program), "--allow-public x --allow-reveal label");
    let (text, called) = run(&home, allowed);
    assert!(called, "{text}");
    let (text, called) = run(&home, &format!("{allowed} --allow-reveal lable"));
    assert!(!called && text.contains("no output 'lable' to allow, it has y, label"), "{text}");
}

/// What a program calls itself must not erase what is said about it.
#[test]
fn names_do_not_act_on_the_terminal() {
    let mut program = program(Owner::Client, |p, [_, shared, _]| p.reveal("label", shared, Target::Server));
    program.name = "model\u{1b}[2J\u{202e}".to_owned();
    program.groups = vec!["layer\r\u{1b}[1A".to_owned()];
    program.dims.push(Dim { name: "tokens\u{7}".to_owned(), size: 4 });
    let home = Home::new(&program);
    for words in ["verify @", "inspect @client"] {
        let output = home.marill(words);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("label"), "{text}");
        assert!(!text.contains(['\u{1b}', '\r', '\u{7}', '\u{202e}']), "{text:?}");
    }
    let json = home.marill("verify @ --json").stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["client"]["must_allow"]["outputs"], serde_json::json!(["label"]));
    assert_eq!(json["program"], program.name);
}

#[test]
fn demo_tells_what_to_allow_and_then_runs() {
    let program = program(Owner::Client, |p, [_, shared, _]| p.reveal("label", shared, Target::Server));
    let home = Home::new(&program);
    let demo = "demo @ --suite dealer --insecure-plaintext --input @x.npz --output @y.npz";
    let text = failed(&home.marill(demo));
    assert!(text.contains("up to 160 bits that depend on x; --allow-reveal label allows it"), "{text}");
    let verified = home.marill("verify @");
    assert!(verified.status.success());
    assert!(String::from_utf8_lossy(&verified.stdout).contains("must say  --allow-reveal label"));
    let output = home.marill(&format!("{demo} --allow-reveal label"));
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{errors}");
    assert!(text.contains("sees      output label f32[1,4], up to 160 bits from x"), "{text}");
    let outputs = npz::read(&home.at("y.npz")).unwrap();
    assert_eq!(outputs["label"].to_f32_vec().unwrap(), [1.0, 2.0, 4.0, -1.0]);
}

#[test]
fn a_server_keeps_its_own_to_itself() {
    let program = program(Owner::Client, |p, [.., w]| {
        let w = p.shared(w);
        p.reveal("bias", w, Target::Client);
    });
    let home = Home::new(&program);
    let dealer = Ear::new();
    let serve = format!(
        "serve @server --suite dealer --listen 127.0.0.1:0 --dealer {} --insecure-plaintext --timeout 0.3 \
         --patience 0.3",
        dealer.address()
    );
    let text = failed(&home.marill(&serve));
    assert!(text.contains("output 'bias' goes to client and depends on private constants"), "{text}");
    assert!(text.contains("--allow-reveal bias allows it"), "{text}");
    assert!(!dealer.was_called());
    failed(&home.marill(&format!("{serve} --allow-reveal bias")));
    assert!(dealer.was_called());
}
