//! New identities.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use marill_runtime::transport::{CERTIFICATE_FILE, Identity, KEY_FILE};

use super::put;

#[derive(Args)]
pub(super) struct Arguments {
    /// Where to put certificate.pem and key.pem; made if need be
    directory: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let identity = Identity::create_in(&arguments.directory)?;
    let at = |file: &str| arguments.directory.join(file).display().to_string();
    put(&format!(
        "give to the others  {}\nkeep to yourself    {}\nfingerprint         {}\n",
        at(CERTIFICATE_FILE),
        at(KEY_FILE),
        identity.fingerprint()
    ))
}
