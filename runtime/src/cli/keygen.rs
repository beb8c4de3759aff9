//! New identities, and keys of what is kept.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use marill_runtime::correlation::store::StoreKey;
use marill_runtime::transport::{CERTIFICATE_FILE, Identity, KEY_FILE};

use super::put;

#[derive(Args)]
#[group(required = true, multiple = false)]
pub(super) struct Arguments {
    /// Where to put certificate.pem and key.pem; made if need be
    directory: Option<PathBuf>,
    /// Make a key of stores and setups instead; beside it lies the register of the stores that were used
    #[arg(long, value_name = "KEYFILE")]
    store_key: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    if let Some(directory) = &arguments.directory {
        let identity = Identity::create_in(directory)?;
        let at = |file: &str| directory.join(file).display().to_string();
        put(&format!(
            "give to the others  {}\nkeep to yourself    {}\nfingerprint         {}\n",
            at(CERTIFICATE_FILE),
            at(KEY_FILE),
            identity.fingerprint()
        ))?;
    }
    if let Some(path) = &arguments.store_key {
        let key = StoreKey::create(path)?;
        put(&format!(
            "keep to yourself    {}\nnever lose          {}\n",
            path.display(),
            key.register().path().display()
        ))?;
    }
    Ok(())
}
