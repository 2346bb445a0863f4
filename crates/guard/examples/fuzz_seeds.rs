//! Writes what the fuzz targets begin with: `fuzz_seeds CORPUS` makes a folder for each of them, with golden packets and one text of each kind.

use std::{fs, io, path::Path};

fn main() -> io::Result<()> {
    let folder = std::env::args_os().nth(1).ok_or_else(|| io::Error::other("usage: fuzz_seeds CORPUS"))?;
    let folder = Path::new(&folder);
    for target in ["packet", "request", "prefix", "list", "config"] {
        fs::create_dir_all(folder.join(target))?;
    }
    for (index, case) in kernel_shared::golden::cases().iter().enumerate() {
        fs::write(folder.join("packet").join(format!("golden-{index:04}")), &case.frame)?;
    }
    for (index, text) in guard::invariants::SEEDS.iter().enumerate() {
        let target = if text.starts_with('{') { "request" } else { "prefix" };
        fs::write(folder.join(target).join(format!("seed-{index:02}")), text)?;
    }
    for (index, text) in guard::invariants::files::SEEDS.iter().enumerate() {
        fs::write(folder.join("list").join(format!("seed-{index:02}")), text)?;
    }
    for (index, text) in guard::invariants::config::seeds().iter().enumerate() {
        fs::write(folder.join("config").join(format!("seed-{index:02}")), text)?;
    }
    Ok(())
}
