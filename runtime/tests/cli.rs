//! The `marill` binary, as people and scripts use it.
#![cfg(unix)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use marill_plaintext::{Tensor, npz};
use marill_program::schema::{self, *};
use marill_program::{Owner, Target, ValidProgram};
use marill_runtime::bundle::{PRIVATE_FILE, PROGRAM_FILE, PUBLIC_FILE};
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::Value;

type Tensors = BTreeMap<String, Tensor>;

/// `y = x * w` for the client's `x [1, 2, 3]` and the server's `w [3, 2]`, opened `rounds` times on the way. The
/// client also gives `attention_mask [1, 2]`, which is not used.
fn program(rounds: usize) -> ValidProgram {
    let mut program = Program { version: VERSION, name: "product".to_owned(), ..Program::default() };
    program.dims.push(Dim { name: "tokens".to_owned(), size: 2 });
    let mut push = |instruction| {
        program.instructions.push(Step { instruction: Some(instruction), group: 0 });
        program.instructions.len() as u32 - 1
    };
    let input = |name: &str, ty: &str| {
        Instruction::Input(Input { name: name.to_owned(), owner: Owner::Client as i32, ty: ty.to_owned() })
    };
    let x = push(input("x", "f32[1,2,3]"));
    push(input("attention_mask", "i64[1,2]"));
    let w = Constant { name: "w".to_owned(), owner: Owner::Server as i32, ty: "f32[3,2]".to_owned() };
    let w = push(Instruction::Constant(w));
    let w = push(Instruction::Weight(Weight { arg: w, width: 40, frac: 10 }));
    let x = push(Instruction::Encode(Encode { arg: x, width: 40, frac: 10 }));
    let mut x = push(Instruction::Share(Share { arg: x }));
    for _ in 0..rounds {
        let opened = push(Instruction::Open(Open { arg: x, to: Target::Both as i32, width: 40 }));
        x = push(Instruction::Lift(Lift { arg: opened, width: 40 }));
    }
    let x = push(Instruction::Open(Open { arg: x, to: Target::Server as i32, width: 40 }));
    let y = push(Instruction::MatMul(Product { a: x, b: w, width: 40 }));
    let value = push(Instruction::Reveal(Reveal { arg: y, to: Target::Client as i32, integer: false }));
    program.outputs.push(schema::Output { name: "y".to_owned(), value, to: Target::Client as i32 });
    ValidProgram::new(program).unwrap()
}

struct Home {
    directory: tempfile::TempDir,
}

impl Home {
    /// Both parties' directories of `program(rounds)`, inputs and a reference.
    fn new(rounds: usize) -> Home {
        let home = Home { directory: tempfile::tempdir().unwrap() };
        let empty: Vec<(&str, TensorView<'_>)> = Vec::new();
        for party in ["client", "server"] {
            fs::create_dir(home.at(party)).unwrap();
            fs::write(home.at(party).join(PROGRAM_FILE), program(rounds).encode()).unwrap();
            fs::write(home.at(party).join(PUBLIC_FILE), serialize(empty.clone(), None).unwrap()).unwrap();
        }
        let w: Vec<u8> = [1.0f32, -1.0, 2.0, 0.5, 0.25, -4.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F32, vec![3, 2], &w).unwrap();
        fs::write(home.at("server").join(PRIVATE_FILE), serialize([("w", view)], None).unwrap()).unwrap();
        home.write("x.npz", &inputs());
        home
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.at(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, tensors: &Tensors) {
        npz::write(&self.at(name), tensors).unwrap();
    }

    fn stats(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.at(name)).unwrap()).unwrap()
    }

    /// Runs `marill`; words that begin with `@` are files of this home.
    fn marill(&self, words: &str) -> Output {
        self.command(words).output().unwrap()
    }

    fn command(&self, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_marill"));
        command.args(words.split_whitespace().map(|word| match word.strip_prefix('@') {
            Some(name) => self.text(name),
            None => word.to_owned(),
        }));
        command
    }

    /// Starts `marill`, and returns the address that it tells.
    fn listening(&self, words: &str) -> (Running, String) {
        let mut child = self
            .command(words)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let mut running = Running { child, out };
        match line.trim().strip_prefix("listening on ") {
            Some(address) => (running, address.to_owned()),
            None => panic!("{line}{}", running.wait().1),
        }
    }

    /// Makes identities of all three.
    fn keygen(&self) {
        for role in ["c", "s", "d"] {
            assert!(self.marill(&format!("keygen @{role}")).status.success());
        }
    }
}

fn inputs() -> Tensors {
    BTreeMap::from([
        ("x".to_owned(), Tensor::f32([1, 2, 3], vec![1.0, 2.0, 4.0, -1.0, 0.5, 8.0]).unwrap()),
        ("attention_mask".to_owned(), Tensor::i64([1, 2], vec![1, 0]).unwrap()),
    ])
}

/// `x * w` of the inputs.
const EXPECTED: [f32; 4] = [6.0, -16.0, 2.0, -30.75];

fn check_output(path: &Path) {
    let outputs = npz::read(path).unwrap();
    assert_eq!(outputs.keys().collect::<Vec<_>>(), ["y"]);
    assert_eq!(outputs["y"].shape(), [1, 2, 2]);
    for (found, expected) in outputs["y"].to_f32_vec().unwrap().iter().zip(EXPECTED) {
        assert!((found - expected).abs() < 0.01, "{found} is not {expected}");
    }
}

/// A process that is killed when the test ends.
struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Running {
    /// Whether it ended well, and its standard error.
    fn wait(&mut self) -> (bool, String) {
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        (self.child.wait().unwrap().success(), text)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The one sentence of a run that failed.
fn sentence(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    text.strip_prefix("error: ").unwrap().trim_end().to_owned()
}

fn assert_contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "\"{part}\" is not in: {text}");
    }
}

#[test]
fn demo_runs_all_three_and_accounts_for_them() {
    let home = Home::new(2);
    // The second row is padding: only the first one counts.
    let reference = Tensor::f32([1, 2, 2], vec![6.5, -16.0, -50.0, 50.0]).unwrap();
    home.write("r.npz", &BTreeMap::from([("y".to_owned(), reference)]));
    let output = home.marill(
        "demo @ --suite dealer --in-turn --input @x.npz --output @y.npz --reference @r.npz --stats @s.json",
    );
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{errors}");
    check_output(&home.at("y.npz"));
    assert_contains(
        &text,
        &["y f32[1,2,2]: ", "largest error 5.0", "rows left out because attention_mask is 0: 1", "online"],
    );
    let stats = home.stats("s.json");
    assert_eq!((&stats["suite"], &stats["program"]), (&"dealer".into(), &"product".into()));
    assert_eq!(stats["digest"].as_str().unwrap().len(), 64);
    assert_eq!(stats["dims"]["tokens"], 2);
    let cost = marill_program::cost::cost(
        &program(2),
        program(2).encode().len() as u64,
        marill_program::Suite::Dealer,
    );
    for (phase, expected) in
        [("setup", &cost.setup), ("preprocess", &cost.preprocess), ("online", &cost.online)]
    {
        let (sent, received) = (&stats[phase]["bytes_sent"], &stats[phase]["bytes_received"]);
        let bytes = &expected.bytes;
        assert_eq!(sent["client"], bytes.client_sent(), "{phase}");
        assert_eq!(sent["server"], bytes.server_sent(), "{phase}");
        assert_eq!(sent["dealer"], bytes.dealer_sent(), "{phase}");
        assert_eq!(received["client"], bytes.server_to_client + bytes.dealer_to_client, "{phase}");
        assert_eq!(received["server"], bytes.client_to_server + bytes.dealer_to_server, "{phase}");
        assert_eq!(received["dealer"], bytes.client_to_dealer + bytes.server_to_dealer, "{phase}");
        assert!(stats[phase]["seconds"].as_f64().unwrap() > 0.0);
    }
    assert_eq!(stats["online"]["rounds"], cost.online.rounds);
    for role in ["client", "server", "dealer"] {
        assert!(stats["peak_rss_bytes"][role].as_u64().unwrap() > 1 << 20, "{role}");
    }
    assert!((stats["max_abs_error"].as_f64().unwrap() - 0.5).abs() < 0.01);
    assert!((stats["mean_abs_error"].as_f64().unwrap() - 0.25).abs() < 0.01);
    assert_eq!(stats["top1_agreement"], 1.0);
}

#[test]
fn bench_measures_every_suite_on_every_network() {
    use marill_program::Suite::{Dealer, TwoParty};
    let home = Home::new(2);
    let words =
        "bench @ --suite two-party --suite dealer --network loopback --network 1Gbit,20ms --json @b.json";
    let output = home.marill(words);
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{errors}");
    assert_contains(
        &text,
        &["two-party", "dealer", "1000Mbit,20ms", "preprocess", "network alone", "peak memory"],
    );
    let cases = home.stats("b.json");
    let told: Vec<(&str, &str)> = cases
        .as_array()
        .unwrap()
        .iter()
        .map(|case| (case["report"]["suite"].as_str().unwrap(), case["network"].as_str().unwrap()))
        .collect();
    let networks = ["8000Mbit,0.04ms", "1000Mbit,20ms"];
    assert_eq!(
        told,
        [
            ("two-party", networks[0]),
            ("two-party", networks[1]),
            ("dealer", networks[0]),
            ("dealer", networks[1])
        ]
    );
    for (case, suite) in cases.as_array().unwrap().iter().zip([TwoParty, TwoParty, Dealer, Dealer]) {
        let online = &case["report"]["online"];
        let cost = marill_program::cost::cost(&program(2), program(2).encode().len() as u64, suite).online;
        assert_eq!(online["rounds"], cost.rounds);
        assert_eq!(online["bytes_sent"]["client"], cost.bytes.client_sent());
        if case["network"] == networks[1] {
            assert!(online["seconds"].as_f64().unwrap() >= cost.rounds as f64 * 0.01);
        }
    }
    assert_contains(&sentence(&home.marill("bench @ @nowhere")), &["could not read", "nowhere"]);
    assert_eq!(home.marill("bench @ --runs 0").status.code(), Some(2));
}

#[test]
fn three_processes_with_identities_of_their_own() {
    let home = Home::new(0);
    home.keygen();
    let (mut dealer, dealer_address) = home.listening(
        "deal --listen 127.0.0.1:0 --identity @d --trust-client @c/certificate.pem --trust-server \
         @s/certificate.pem --stats @deal.json",
    );
    let serve = format!(
        "serve @server --suite dealer --listen 127.0.0.1:0 --dealer {dealer_address} --identity @s --trust \
         @c/certificate.pem --trust-dealer @d/certificate.pem --stats @serve.json"
    );
    let (mut server, address) = home.listening(&serve);
    let run = |trusted: &str| {
        format!(
            "run @client --suite dealer --connect {address} --dealer {dealer_address} --input @x.npz --output @y.npz \
             --identity @c --trust @{trusted}/certificate.pem --trust-dealer @d/certificate.pem --stats @run.json"
        )
    };
    // The wrong certificate is a clear error, and the server waits for somebody better.
    let error = sentence(&home.marill(&run("d")));
    assert_contains(&error, &["the certificate of the server does not fit", "blake3:"]);
    let output = home.marill(&run("s"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_contains(&String::from_utf8_lossy(&output.stdout), &["y f32[1,2,2]: ", "client sent"]);
    check_output(&home.at("y.npz"));
    let (well, text) = server.wait();
    assert!(well, "{text}");
    assert_contains(&text, &["turned a caller away"]);
    assert!(dealer.wait().0);
    let stats = [home.stats("run.json"), home.stats("serve.json"), home.stats("deal.json")];
    for (own, role) in ["client", "server", "dealer"].into_iter().enumerate() {
        for (at, stats) in stats.iter().enumerate() {
            assert_eq!(stats["setup"]["bytes_sent"][role].is_null(), at != own, "{role} {at}");
            assert_eq!(stats["peak_rss_bytes"][role].is_null(), at != own, "{role} {at}");
            assert_eq!(
                stats["plaintext_seconds"][role].is_null(),
                at != own || role == "dealer",
                "{role} {at}"
            );
        }
    }
    assert!(stats[2]["program"].is_null() && stats[2]["online"]["rounds"].is_null());
    assert_eq!(stats[0]["online"]["rounds"], stats[1]["online"]["rounds"]);
}

/// Dealer and server without TLS, and the client's command line.
fn plain(home: &Home, more: &str) -> (Running, Running, String) {
    let (dealer, dealer_address) = home.listening("deal --listen 127.0.0.1:0 --insecure-plaintext");
    let (server, address) = home.listening(&format!(
        "serve @server --suite dealer --listen 127.0.0.1:0 --dealer {dealer_address} --insecure-plaintext {more}"
    ));
    let run = format!(
        "run @client --suite dealer --connect {address} --dealer {dealer_address} --insecure-plaintext --input @x.npz"
    );
    (dealer, server, run)
}

#[test]
fn another_program_at_the_client_is_told_to_everybody() {
    let home = Home::new(0);
    fs::write(home.at("client").join(PROGRAM_FILE), program(1).encode()).unwrap();
    let (mut dealer, mut server, run) = plain(&home, "");
    assert_contains(&sentence(&home.marill(&run)), &["the program digest of the server does not fit"]);
    let (well, text) = server.wait();
    assert!(!well);
    assert_contains(&text, &["error: the program digest of the client does not fit"]);
    assert!(!dealer.wait().0);
    // The demo tells the first cause, not what it brought about.
    let text = sentence(&home.marill("demo @ --suite dealer --insecure-plaintext --input @x.npz"));
    assert_contains(&text, &["the program digest of the", "does not fit"]);
}

#[test]
fn a_server_that_dies_in_mid_round_is_noticed() {
    let home = Home::new(60);
    let network = "--network 100Mbit,100ms";
    let (mut dealer, mut server, run) = plain(&home, &format!("{network} --supervised"));
    let mut client = home.command(&format!("{run} {network}")).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    while !line.starts_with("progress online 3") {
        line.clear();
        assert_ne!(server.out.read_line(&mut line).unwrap(), 0);
    }
    // SIGKILL.
    server.child.kill().unwrap();
    let since = Instant::now();
    let status = client.wait().unwrap();
    assert!(since.elapsed() < Duration::from_secs(3));
    assert_eq!(status.code(), Some(1));
    let mut text = String::new();
    client.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert_contains(&text, &["error: the server closed the connection while the client", "of online round"]);
    dealer.wait();
}

/// The processes whose parent is `parent`, and their command lines.
#[cfg(target_os = "linux")]
fn children_of(parent: u32) -> Vec<(u32, String)> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(id) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        if after_name.split_whitespace().nth(1) == Some(parent.to_string().as_str()) {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            children.push((id, String::from_utf8_lossy(&line).replace('\0', " ")));
        }
    }
    children
}

#[cfg(target_os = "linux")]
fn wait_for<T>(mut what: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        match what() {
            Some(found) => return found,
            None => assert!(since.elapsed() < Duration::from_secs(10), "it never came"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn demo_names_the_one_that_died_and_leaves_nobody_behind() {
    let home = Home::new(60);
    let words = "demo @ --suite dealer --input @x.npz --network 100Mbit,100ms";
    let start = || home.command(words).stderr(Stdio::piped()).spawn().unwrap();
    let all_three = |demo: &Child| {
        wait_for(|| {
            let children = children_of(demo.id());
            let id = |name: &str| {
                let found = children.iter().find(|child| child.1.contains(&format!(" {name} ")))?;
                Some(found.0)
            };
            Some([id("run")?, id("serve")?, id("deal")?])
        })
    };
    // A child that nobody has waited for yet is a zombie, state Z.
    let ended = |id: &u32| match fs::read_to_string(format!("/proc/{id}/stat")) {
        Ok(stat) => stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')),
        Err(_) => true,
    };
    let gone = |ids: [u32; 3]| wait_for(|| ids.iter().all(ended).then_some(()));
    let demo = start();
    let ids = all_three(&demo);
    assert!(Command::new("kill").args(["-9", &ids[1].to_string()]).status().unwrap().success());
    let text = sentence(&demo.wait_with_output().unwrap());
    assert_contains(&text, &["the server ended without a word", "signal: 9"]);
    gone(ids);
    let mut demo = start();
    let ids = all_three(&demo);
    demo.kill().unwrap();
    demo.wait().unwrap();
    gone(ids);
}

#[test]
fn demo_without_a_suite_has_no_third_party() {
    let home = Home::new(2);
    let output = home.marill("demo @ --input @x.npz --output @y.npz --stats @s.json");
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{errors}");
    check_output(&home.at("y.npz"));
    assert_contains(&text, &["two-party suite", "no third party takes part"]);
    let stats = home.stats("s.json");
    assert_eq!(stats["suite"], "two-party");
    assert!(stats["peak_rss_bytes"]["dealer"].is_null());
    let cost = marill_program::cost::cost(&program(2), 0, marill_program::Suite::TwoParty);
    for (phase, expected) in
        [("setup", &cost.setup), ("preprocess", &cost.preprocess), ("online", &cost.online)]
    {
        let sent = &stats[phase]["bytes_sent"];
        assert_eq!(sent["client"], expected.bytes.client_to_server, "{phase}");
        assert_eq!(sent["server"], expected.bytes.server_to_client, "{phase}");
        assert_eq!(stats[phase]["rounds"], expected.rounds, "{phase}");
    }
}

#[test]
fn a_suite_has_its_dealer_or_none() {
    let home = Home::new(0);
    for (words, expected) in [
        ("serve @server --listen 127.0.0.1:0 --dealer 127.0.0.1:1", "the two-party suite has no dealer"),
        ("run @client --connect 127.0.0.1:1 --dealer 127.0.0.1:1 --input @x.npz", "add --suite dealer"),
        ("run @client --connect 127.0.0.1:1 --suite dealer --input @x.npz", "needs --dealer ADDRESS"),
    ] {
        let text = sentence(&home.marill(&format!("{words} --insecure-plaintext")));
        assert_contains(&text, &[expected]);
    }
}

#[test]
fn nothing_goes_without_tls_unasked() {
    let home = Home::new(0);
    home.keygen();
    let run =
        "run @client --suite dealer --connect 127.0.0.1:1 --dealer 127.0.0.1:1 --input @x.npz --timeout 0.2";
    let missing = ["--identity, --trust, --trust-dealer", "marill keygen", "--insecure-plaintext"];
    assert_contains(&sentence(&home.marill(run)), &missing);
    let serve = "serve @server --suite dealer --listen 127.0.0.1:0 --dealer 127.0.0.1:1 --identity @s";
    assert_contains(&sentence(&home.marill(serve)), &["tls needs --trust, --trust-dealer as well"]);
    let deal = "deal --listen 127.0.0.1:0 --identity @d --trust-client @c/certificate.pem";
    assert_contains(&sentence(&home.marill(deal)), &["tls needs --trust-server as well"]);
    let nowhere = format!("{run} --insecure-plaintext");
    let text = sentence(&home.marill(&nowhere));
    assert_contains(&text, &["the connection to the server failed", "127.0.0.1:1"]);
}

#[test]
fn files_that_do_not_fit_are_told_before_anybody_is_called() {
    let home = Home::new(0);
    let demo = "demo @ --suite dealer --input @x.npz";
    let told = |tensors: &Tensors| {
        home.write("x.npz", tensors);
        sentence(&home.marill(demo))
    };
    let mut tensors = inputs();
    tensors.insert("tokens".to_owned(), Tensor::scalar_i64(1));
    assert_eq!(told(&tensors), "input tokens: the program has no such input, it has x, attention_mask");
    tensors = inputs();
    tensors.remove("attention_mask");
    assert_eq!(told(&tensors), "input attention_mask: it is missing");
    tensors.insert("attention_mask".to_owned(), Tensor::i64([2], vec![1, 1]).unwrap());
    assert_eq!(told(&tensors), "input attention_mask: expected shape [1, 2], found [2]");
    tensors.insert("attention_mask".to_owned(), Tensor::f32([1, 2], vec![1.0, 1.0]).unwrap());
    assert_eq!(told(&tensors), "input attention_mask: expected elements of type i64, found f32");
    fs::write(home.at("x.npz"), b"not a zip").unwrap();
    assert_contains(&sentence(&home.marill(demo)), &["could not read", "x.npz"]);
    home.write("x.npz", &inputs());
    home.write("r.npz", &BTreeMap::from([("y".to_owned(), Tensor::scalar_f32(1.0))]));
    let text = sentence(&home.marill(&format!("{demo} --reference @r.npz")));
    assert_eq!(text, "output y has shape [1, 2, 2], the reference []");
    assert_contains(&sentence(&home.marill(&format!("{demo} --output @none/y.npz"))), &["cannot write"]);

    let serve = "--suite dealer --listen 127.0.0.1:0 --dealer 127.0.0.1:1 --insecure-plaintext --timeout 0.2";
    let text = sentence(&home.marill(&format!("serve @client {serve}")));
    assert_contains(&text, &[PRIVATE_FILE, "it must hold the constant 'w'"]);
    let whole = program(0).encode();
    for end in [0, whole.len() / 2, whole.len() - 1] {
        for party in ["client", "server"] {
            fs::write(home.at(party).join(PROGRAM_FILE), &whole[..end]).unwrap();
        }
        for words in [demo.to_owned(), format!("serve @server {serve}"), "verify @client".to_owned()] {
            assert_contains(&sentence(&home.marill(&words)), &["the program is not valid"]);
        }
    }
    fs::remove_file(home.at("client").join(PROGRAM_FILE)).unwrap();
    assert_contains(&sentence(&home.marill(demo)), &["could not read", PROGRAM_FILE]);
}

#[test]
fn programs_are_verified_and_shown() {
    let home = Home::new(1);
    for words in ["verify @client/program.marill", "verify @client", "verify @server", "verify @"] {
        let output = home.marill(words);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_contains(
            &text,
            &[
                "digest  ",
                "holds     input x f32[1,2,3]",
                "sees      output y f32[1,2,2], up to 160 bits from x, private constants",
                "sees      no output",
                "does not learn  x, attention_mask, nor any hidden value",
                "valid\n",
            ],
        );
    }
    let json: Value = serde_json::from_slice(&home.marill("verify @ --json").stdout).unwrap();
    assert_eq!(json["client"]["masked_weights"]["elements"], 6);
    assert_eq!(json["client"]["sees"][0]["inputs"], serde_json::json!(["x"]));
    assert_eq!(json["server"]["sees"], serde_json::json!([]));
    assert_eq!(json["client"]["must_allow"]["outputs"], serde_json::json!([]));
    let output = home.marill("inspect @client");
    assert_contains(&String::from_utf8_lossy(&output.stdout), &["%0 = input \"x\"", "preprocess", "rounds"]);
    let json: Value = serde_json::from_slice(&home.marill("inspect @ --json").stdout).unwrap();
    assert_eq!(
        json["online"]["rounds"],
        marill_program::cost::cost(&program(1), 0, marill_program::Suite::Dealer).online.rounds
    );
    assert_eq!(
        (&json["inputs"][0]["owner"], &json["outputs"][0]["to"]),
        (&"client".into(), &"client".into())
    );
    fs::copy(home.at("server").join(PRIVATE_FILE), home.at("client").join(PRIVATE_FILE)).unwrap();
    for words in ["verify @client", "verify @"] {
        assert_contains(&sentence(&home.marill(words)), &[PRIVATE_FILE, "only the server may have"]);
    }
    fs::remove_file(home.at("client").join(PRIVATE_FILE)).unwrap();
    fs::write(home.at("server").join(PROGRAM_FILE), program(2).encode()).unwrap();
    assert_contains(&sentence(&home.marill("verify @")), &["the parties' programs differ"]);
}

#[test]
fn a_setup_that_two_processes_keep_serves_the_next_run() {
    let home = Home::new(2);
    for party in ["client", "server"] {
        assert!(home.marill(&format!("keygen --store-key @{party}.key")).status.success());
    }
    let serve = |kept: &str| {
        home.listening(&format!("serve @server --listen 127.0.0.1:0 --insecure-plaintext {kept}"))
    };
    let run = |address: &str| {
        home.marill(&format!(
            "run @client --connect {address} --insecure-plaintext --input @x.npz --output @y.npz --setup @c.setup \
             --key @client.key --stats @run.json"
        ))
    };
    let setup_bytes = || home.stats("run.json")["setup"]["bytes_sent"]["client"].as_u64().unwrap();
    for (at, least) in [(0, 8192), (1, 0)] {
        let (mut server, address) = serve("--setup @s.setup --key @server.key");
        let output = run(&address);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_contains(&String::from_utf8_lossy(&output.stdout), &["setup kept in ", "c.setup, "]);
        assert!(server.wait().0);
        check_output(&home.at("y.npz"));
        assert!((least..least + 20_000).contains(&setup_bytes()), "run {at}: {} bytes", setup_bytes());
    }
    assert!(setup_bytes() < 200);
    let (mut server, address) = serve("");
    let text = "the setup of the server does not fit: expected kept, found made for one run";
    assert_contains(&sentence(&run(&address)), &[text]);
    assert_contains(&server.wait().1, &["error: the setup of the client does not fit"]);
    let both =
        "run @client --connect 127.0.0.1:1 --insecure-plaintext --store @a --setup @b --key @client.key";
    assert!(!home.marill(both).status.success());
    let keyless = "run @client --connect 127.0.0.1:1 --insecure-plaintext --setup @b";
    assert!(!home.marill(keyless).status.success());
}

#[test]
fn what_two_processes_prepare_serves_one_run() {
    let home = Home::new(2);
    for party in ["client", "server"] {
        let output = home.marill(&format!("keygen --store-key @{party}.key"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_contains(&String::from_utf8_lossy(&output.stdout), &["never lose", ".key.used"]);
    }
    let prepare = |n: u32| {
        let (mut server, address) = home.listening(&format!(
            "prepare @server --party server --listen 127.0.0.1:0 --store @{n}.server --key @server.key \
             --insecure-plaintext"
        ));
        let output = home.marill(&format!(
            "prepare @client --party client --connect {address} --store @{n}.client --key @client.key \
             --insecure-plaintext --stats @prepare.json"
        ));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(server.wait().0);
        assert_contains(&String::from_utf8_lossy(&output.stdout), &["store ", "for one run", "preprocess"]);
    };
    prepare(1);
    prepare(2);
    let stats = home.stats("prepare.json");
    assert_eq!((&stats["suite"], &stats["online"]["rounds"]), (&"two-party".into(), &0.into()));

    let serve = |store: &str| {
        home.listening(&format!("serve @server --listen 127.0.0.1:0 --insecure-plaintext {store}"))
    };
    let run = |address: &str, store: u32| {
        home.marill(&format!(
            "run @client --connect {address} --insecure-plaintext --input @x.npz --output @y.npz --store \
             @{store}.client --key @client.key --stats @run.json"
        ))
    };
    // Whoever does not fit is told so, and keeps its store.
    for (other, text) in [
        ("", "the purpose of the server does not fit: expected a run from a store, found a whole run"),
        ("--store @2.server --key @server.key", "the store of the server does not fit"),
    ] {
        let (mut server, address) = serve(other);
        assert_contains(&sentence(&run(&address, 1)), &[text]);
        assert_contains(&server.wait().1, &["error: the", "of the client does not fit"]);
    }
    fs::copy(home.at("1.client"), home.at("3.client")).unwrap();
    let (mut server, address) = serve("--store @1.server --key @server.key");
    let output = run(&address, 1);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(server.wait().0);
    check_output(&home.at("y.npz"));
    assert_eq!(home.stats("run.json")["preprocess"]["bytes_sent"]["client"], 0);
    assert!(!home.at("1.client").exists() && !home.at("1.server").exists());

    assert_contains(&sentence(&run("127.0.0.1:1", 1)), &["could not read", "1.client"]);
    assert_contains(&sentence(&run("127.0.0.1:1", 3)), &["was used before, says", "client.key.used"]);
    let (mut server, address) = serve("--store @2.server --key @server.key");
    assert!(run(&address, 2).status.success() && server.wait().0);

    let prepare = "prepare @client --party client --store @4.client --key @client.key --insecure-plaintext";
    assert_contains(&sentence(&home.marill(prepare)), &["the client prepares with --connect ADDRESS"]);
    assert_contains(
        &sentence(&home.marill("keygen --store-key @client.key")),
        &["could not create", "client.key"],
    );
    let dealt = "serve @server --suite dealer --dealer 127.0.0.1:1 --listen 127.0.0.1:0 --insecure-plaintext";
    let dealt = format!("{dealt} --store @3.client --key @server.key");
    assert_contains(&sentence(&home.marill(&dealt)), &["correlations are not kept"]);
}
