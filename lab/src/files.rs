//! Files that others read while we write them.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

/// Writes JSON so that a reader sees the old text or the new one, never a part: to a neighbour, then renamed.
///
/// # Errors
/// If it can't be written.
pub fn write_json<T: Serialize + ?Sized>(path: &Path, value: &T) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value).with_context(|| format!("encode {}", path.display()))?;
    text.push('\n');
    let mut neighbour = path.as_os_str().to_owned();
    neighbour.push(".new");
    std::fs::write(&neighbour, text).with_context(|| format!("write {}", path.display()))?;
    std::fs::rename(&neighbour, path).with_context(|| format!("replace {}", path.display()))
}
