//! The house's rules that a search can check: sizes, import directions, names, paths, unsafe code.

use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a Rust file.
const LINES: usize = 700;
/// Files that may grow to [`MORE_LINES`]: tables of operations, text forms, command lines.
const LONGER: [&str; 7] = [
    "compiler/src/cli",
    "compiler/src/import/ops",
    "compiler/src/ir/text.rs",
    "runtime/plaintext/src/op.rs",
    "runtime/plaintext/src/text.rs",
    "runtime/program/src/text.rs",
    "runtime/src/cli",
];
const MORE_LINES: usize = 1000;

/// Bytes of any file, and of everything under `examples/`.
const BYTES: u64 = 5_000_000;

/// What cargo-fuzz leaves behind.
const FUZZED: [&str; 4] =
    ["compiler/fuzz/artifacts", "compiler/fuzz/corpus", "compiler/fuzz/coverage", "compiler/fuzz/target"];

/// Where a word must not stand: folder, word, reason.
const DIRECTIONS: [(&str, &str, &str); 11] = [
    ("compiler/src", "marill_runtime", "the compiler does not depend on the runtime"),
    ("runtime", "marill_compiler", "the runtime does not depend on the compiler"),
    ("runtime/program/src", "marill_runtime", "the contract depends on neither side"),
    ("runtime/plaintext/src", "marill_program", "tensors know no programs"),
    ("runtime/kernels/src", "marill_plaintext", "kernels know no tensors"),
    ("runtime/src/protocol", "crate::executor", "protocols never see the executor"),
    ("runtime/src/protocol", "crate::transport", "protocols do not communicate"),
    ("runtime/src/transport", "crate::sharing", "bytes know nothing of shares"),
    ("runtime/src/transport", "Share", "bytes know nothing of shares"),
    ("runtime/src/sharing", "crate::transport", "shares know nothing of channels"),
    ("runtime/src/correlation", "crate::executor", "preprocessing comes before execution"),
];

/// The crate that only importing may mention, and exporting, which writes what importing reads.
const ONNX: &str = "onnx_protobuf";
const KNOW_ONNX: [&str; 2] = ["compiler/src/import/", "compiler/src/export/"];

/// Module names that say nothing.
const EMPTY_NAMES: [&str; 5] = ["util", "common", "helpers", "misc", "core"];

/// Where `unsafe` may stand.
const UNSAFE: [&str; 2] = ["runtime/kernels/", "compiler/src/import/tensors.rs"];

/// Beginnings of paths that exist on one machine only.
const MACHINE_PATHS: [&str; 6] = ["home", "Users", "root", "work", "tmp", "mnt"];

struct File {
    /// Relative to the repository, with `/`.
    name: String,
    bytes: u64,
    /// Contents, unless binary.
    text: Option<String>,
}

/// Every file of the repository that is not built.
fn files() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let mut entries: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
            if name == ".git" || name.starts_with("target") || name.ends_with(".snap.new") {
                continue;
            }
            if FUZZED.contains(&name.as_str()) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let contents = fs::read(&path).unwrap();
            files.push(File { name, bytes: contents.len() as u64, text: String::from_utf8(contents).ok() });
        }
    }
    assert!(files.len() > 100, "found {} files, which cannot be all", files.len());
    files
}

/// Rust sources with their texts.
fn sources(files: &[File]) -> impl Iterator<Item = (&str, &str)> {
    files
        .iter()
        .filter(|f| f.name.ends_with(".rs"))
        .filter_map(|f| Some((f.name.as_str(), f.text.as_deref()?)))
}

/// A line without its comment.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

fn report(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn files_are_short() {
    let files = files();
    let mut problems = Vec::new();
    for (name, text) in sources(&files) {
        let most = if LONGER.iter().any(|l| name.starts_with(l)) { MORE_LINES } else { LINES };
        let lines = text.lines().count();
        if lines > most {
            problems.push(format!("{name}: {lines} lines, the cap is {most}"));
        }
    }
    report(&problems);
}

#[test]
fn files_are_small() {
    let files = files();
    let large = files.iter().filter(|f| f.bytes > BYTES).map(|f| format!("{}: {} bytes", f.name, f.bytes));
    report(&large.collect::<Vec<_>>());
    let examples: u64 = files.iter().filter(|f| f.name.starts_with("examples/")).map(|f| f.bytes).sum();
    assert!(examples <= BYTES, "examples/ has {examples} bytes");
}

#[test]
fn imports_point_one_way() {
    let files = files();
    for (folder, _, _) in DIRECTIONS {
        assert!(files.iter().any(|f| f.name.starts_with(folder)), "{folder} holds nothing");
    }
    let mut problems = Vec::new();
    for (name, text) in sources(&files) {
        for (number, line) in text.lines().enumerate() {
            let at = |reason: &str| format!("{name}:{}: {reason}", number + 1);
            for (folder, word, reason) in DIRECTIONS {
                if name.starts_with(&format!("{folder}/")) && mentions(code(line), word) {
                    problems.push(at(reason));
                }
            }
            let is_product = ["compiler/src/", "runtime/src/"].iter().any(|p| name.starts_with(p));
            let knows = KNOW_ONNX.iter().any(|folder| name.starts_with(folder));
            if is_product && !knows && code(line).contains(ONNX) {
                problems.push(at("only importing and exporting know ONNX"));
            }
        }
    }
    report(&problems);
}

/// Whether `word` stands in `line` with no letter before it.
fn mentions(line: &str, word: &str) -> bool {
    let is_start = |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, _)| is_start(at))
}

#[test]
fn names_say_something() {
    let files = files();
    let mut problems = Vec::new();
    for (name, _) in sources(&files) {
        let path = Path::new(name).with_extension("");
        if path.iter().any(|part| EMPTY_NAMES.iter().any(|empty| part == *empty)) {
            problems.push(format!("{name}: the name says nothing"));
        }
    }
    report(&problems);
}

#[test]
fn unsafe_code_is_in_the_kernels() {
    let files = files();
    let mut problems = Vec::new();
    for (name, text) in sources(&files) {
        if name == "tests/tidy.rs" || UNSAFE.iter().any(|u| name.starts_with(u)) {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            if mentions(code(line), "unsafe ") || mentions(code(line), "unsafe_code") {
                problems.push(format!("{name}:{}: unsafe code", number + 1));
            }
        }
    }
    report(&problems);
}

#[test]
fn no_path_belongs_to_one_machine() {
    let files = files();
    let mut problems = Vec::new();
    for file in files.iter().filter(|f| f.name != "tests/tidy.rs") {
        let Some(text) = &file.text else { continue };
        for (number, line) in text.lines().enumerate() {
            let absolute = |folder: &&str| {
                let is_first =
                    |at: usize| at == 0 || line[..at].ends_with([' ', '"', '\'', '`', '(', '=', ':']);
                // Tests of what is left out of messages invent a somebody.
                let is_invented = |at: usize| line[at..].starts_with("/home/some");
                line.match_indices(&format!("/{folder}/")).any(|(at, _)| is_first(at) && !is_invented(at))
            };
            if MACHINE_PATHS.iter().any(absolute) {
                problems.push(format!("{}:{}: {}", file.name, number + 1, line.trim()));
            }
        }
    }
    report(&problems);
}
