//! Where exported and trained models are, which lie beside the repository.

use std::path::{Path, PathBuf};

/// The folder of shared models.
///
/// # Errors
/// A sentence that says where they were looked for and are not.
pub fn find_shared() -> Result<PathBuf, String> {
    let path = std::env::var_os("MARILL_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let models = path.join("models");
    if models.is_dir() {
        return Ok(models);
    }
    Err(format!("there are no shared models in {}; MARILL_SHARED may name their folder", path.display()))
}
