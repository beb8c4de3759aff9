//! Memory does not grow with the weights: a model of gigabytes is compiled in little more than a tensor's.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::binaries::binary;
use crate::support::llama::Llama;

/// Above what the largest tensor takes in f32, 180 MB, and far below all of them, 3.3 GB.
const MOST_BYTES: u64 = 500 << 20;

/// Four layers as wide as Llama 7B's.
fn wide() -> Llama {
    let of_7b = Llama::named("7b", 8).unwrap();
    Llama { layers: 4, vocabulary: 1024, half: true, ..of_7b }
}

/// The most memory that a process had, files that it reads included; nothing where the system does not tell.
fn peak_bytes(command: &mut Command) -> Option<u64> {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = None;
    loop {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        peak = kilobytes.map(|k| k << 10).max(peak);
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{command:?}");
            return peak;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_model_larger_than_memory_needs_to_be_is_compiled() {
    let folder = tempfile::tempdir().unwrap();
    let (model, base) = (folder.path().join("model.onnx"), folder.path().join("base.onnx"));
    wide().write_data(folder.path()).unwrap();
    wide().write(&model).unwrap();
    wide().write(&base).unwrap();
    let weights_bytes = fs::metadata(folder.path().join(wide().data_file())).unwrap().len();
    assert!(weights_bytes > 3 * MOST_BYTES);
    let base = base.to_str().unwrap();
    let requests: [&[&str]; 3] = [&[], &["--private", "*.layers.3.*"], &["--public", base]];
    for request in requests {
        let mut marillc = Command::new(binary("marillc").unwrap());
        marillc.arg(&model).args(["--cost-only", "-o"]).arg(folder.path().join("out")).args(request);
        let Some(peak) = peak_bytes(&mut marillc) else {
            println!("skipped: this system does not tell how much memory a process has");
            return;
        };
        assert!(peak < MOST_BYTES, "{request:?}: {peak} bytes");
    }
}
