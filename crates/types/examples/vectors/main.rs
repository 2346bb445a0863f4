//! Writes the test vectors of `docs/spec/wire.md`: `cargo run -p types --example vectors [FOLDER]`.
//!
//! The vectors freeze the formats: a test compares them with what this makes, so a change of bytes is seen and is a
//! decision of its own.
use std::path::PathBuf;

mod files;

fn main() -> std::io::Result<()> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/spec/vectors");
    let folder = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| default.to_owned()));
    std::fs::create_dir_all(&folder)?;
    for (name, value) in files::all() {
        let path = folder.join(name);
        std::fs::write(&path, format!("{value:#}\n"))?;
        println!("{}", path.display());
    }
    Ok(())
}
