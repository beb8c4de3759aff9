//! The product's binaries, built when they are missing or stale and found beside the running example or test.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The path of the binary `name` in the profile and target directory of the running program.
///
/// # Errors
/// If the running program does not lie where cargo puts it, or cargo cannot build the binary.
pub fn binary(name: &str) -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let misplaced = || io::Error::other(format!("{} is not where cargo builds", program.display()));
    // Examples lie in `<target>/<profile>/examples`, tests in `<target>/<profile>/deps`.
    let built = program.parent().and_then(Path::parent).ok_or_else(misplaced)?;
    let target = built.parent().ok_or_else(misplaced)?;
    let profile = match built.file_name().and_then(|name| name.to_str()).ok_or_else(misplaced)? {
        "debug" => "dev",
        other => other,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    // Asked for an example as well, cargo takes dependencies with the features that tests and examples give them, as it
    // has built them already.
    let mut command = Command::new(cargo);
    // What cargo tells the running program about its package would look changed to build scripts that watch it, ring's
    // among them, and be built again with all that depends on it.
    for (variable, _) in std::env::vars_os() {
        let is_of_package =
            |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        if variable.to_str().is_some_and(is_of_package) {
            command.env_remove(&variable);
        }
    }
    let status = command
        .args([
            "build",
            "--quiet",
            "--profile",
            profile,
            "--bin",
            name,
            "--example",
            "small_lm",
            "--target-dir",
        ])
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()?;
    if !status.success() {
        return Err(io::Error::other(format!("building {name} failed: {status}")));
    }
    Ok(built.join(format!("{name}{}", std::env::consts::EXE_SUFFIX)))
}
