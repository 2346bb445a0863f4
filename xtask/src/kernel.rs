//! `cargo xtask kernel build|verify`: from `kernel/` to the stripped, committed objects, bit for bit.
//!
//! What makes it reproducible:
//! - The sources are copied into a stage whose root is the cargo workspace. A path dependency outside the workspace would put the
//!   clone's absolute path into the crate hash, and through the mangled names into the object.
//! - The stage and the registry are remapped to fixed names, for the line information in BTF.
//! - Of a file that it finds, the code generator copies the lines into BTF, too. So sources of core, which may be installed or not, are
//!   hidden from it: their names are in the prebuilt core and can't be remapped.
//! - Debug sections are stripped; BTF stays.
//!
//! `objects.lock` holds the hash of each object, of the sources they were built from, and the tools' versions.

mod toolchain;

use anyhow::{Context, ensure};
use clap::Subcommand;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Subcommands.
#[derive(Subcommand)]
pub enum Task {
    /// Build the objects and write them, with objects.lock, into crates/guard/objects.
    Build,
    /// Load every program and write what each costs the kernel's verifier into verifier.lock. Needs root.
    Budget,
    /// Fail if sources and objects don't belong together: hashes first, then a rebuild compared bit for bit.
    Verify {
        /// Compare hashes only: needs no BPF toolchain.
        #[arg(long)]
        hashes_only: bool,
    },
}

const OBJECTS: &str = "crates/guard/objects";
/// The objects; each is the binary of the same name.
const PROGRAMS: [&str; 4] = ["bench", "egress", "guard", "probes"];
const LOCK: &str = "objects.lock";

/// What is copied to the stage and hashed, relative to the root.
const SOURCES: [&str; 4] = ["kernel/programs/Cargo.toml", "kernel/programs/Cargo.lock", "kernel/programs/src", "kernel/shared/src"];

/// Files and folders of the shared crate that are for tests only: not in the object, so not in its hash.
const TEST_ONLY: [&str; 5] = ["tests.rs", "golden.rs", "golden", "invariants.rs", "model.rs"];

/// The stage's manifest of `kernel-shared`: what the kernel build needs of it, and nothing that names the outer workspace.
const SHARED_MANIFEST: &str =
    "[package]\nname = \"kernel-shared\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[features]\nmodel = []\n";

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Lock {
    object: BTreeMap<String, Object>,
    tools: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Object {
    sha256: String,
    bytes: usize,
    sources_sha256: String,
}

/// Runs a subcommand.
pub fn run(task: Task, root: &Path) -> anyhow::Result<()> {
    match task {
        Task::Build => {
            let (objects, lock) = build(root)?;
            let folder = root.join(OBJECTS);
            fs::create_dir_all(&folder)?;
            for (name, object) in &objects {
                fs::write(folder.join(name), object)?;
                println!("{OBJECTS}/{name}: {} bytes, sha256 {}", object.len(), lock.object[name].sha256);
            }
            fs::write(folder.join(LOCK), lock_text(&lock)?)?;
            Ok(())
        }
        Task::Budget => budget(root),
        Task::Verify { hashes_only } => verify(root, hashes_only),
    }
}

/// Runs the test that compares the budgets in the way that writes them: it is the one that can load programs.
fn budget(root: &Path) -> anyhow::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root).args(["test", "--quiet", "--package", "guard", "--test", "it", "--", "verifier_budget"]);
    let status = command.env("CI", "true").env("EBPF_VERIFIER_BUDGET_WRITE", "1").status().context("running the test")?;
    ensure!(status.success(), "the programs can't be loaded here");
    println!("{OBJECTS}/verifier.lock written");
    Ok(())
}

fn verify(root: &Path, hashes_only: bool) -> anyhow::Result<()> {
    let folder = root.join(OBJECTS);
    let text = fs::read_to_string(folder.join(LOCK)).with_context(|| format!("reading {OBJECTS}/{LOCK}"))?;
    let lock: Lock = toml::from_str(&text).with_context(|| format!("{OBJECTS}/{LOCK} can't be read"))?;
    let sources = sources_hash(root)?;
    let mut committed = BTreeMap::new();
    for name in PROGRAMS.map(object_name) {
        let object = fs::read(folder.join(&name)).with_context(|| format!("reading {OBJECTS}/{name}"))?;
        let entry = lock.object.get(&name).with_context(|| format!("{LOCK} has no entry for {name}"))?;
        ensure!(
            entry.sha256 == hash(&object),
            "{OBJECTS}/{name} is not the object that {LOCK} names; run: cargo xtask kernel build"
        );
        ensure!(entry.sources_sha256 == sources, "kernel/ has changed since {name} was built; run: cargo xtask kernel build");
        committed.insert(name, object);
    }
    if hashes_only {
        println!("{}: hashes match (not rebuilt)", PROGRAMS.map(object_name).join(", "));
        return Ok(());
    }
    let (rebuilt, now) = build(root)?;
    if rebuilt != committed {
        let differs: Vec<&str> =
            rebuilt.iter().filter(|(name, object)| committed.get(*name) != Some(object)).map(|(name, _)| name.as_str()).collect();
        let different = now.tools.iter().filter(|(tool, version)| lock.tools.get(*tool) != Some(version));
        let tools: Vec<String> = different
            .map(|(tool, version)| {
                format!("{tool}: here {version}, then {}", lock.tools.get(tool).map_or("unknown", String::as_str))
            })
            .collect();
        let why = if tools.is_empty() { "the same tools made another object".to_string() } else { tools.join("; ") };
        anyhow::bail!("a rebuild of {} differs from the committed one ({why})", differs.join(", "));
    }
    for (name, entry) in &lock.object {
        println!("{name}: rebuilt bit for bit, sha256 {}", entry.sha256);
    }
    Ok(())
}

fn object_name(program: &str) -> String {
    format!("{program}.o")
}

/// Builds the objects; their bytes by name, and what the lock says about them.
fn build(root: &Path) -> anyhow::Result<(BTreeMap<String, Vec<u8>>, Lock)> {
    let toolchain = toolchain::find()?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let stage = root.join(&target).join("kernel-stage");
    stage_sources(root, &stage)?;
    let output = stage.join("target");
    let mut flags: Vec<String> = ["-Clinker=bpf-linker", "-Clink-arg=--btf", "-Cdebuginfo=2"].map(String::from).into();
    flags.push("--cfg=bpf_target_arch=\"x86_64\"".into());
    flags.push(format!("--remap-path-prefix={}=/ebpf-guard", stage.display()));
    flags.extend(toolchain::registries().iter().map(|path| format!("--remap-path-prefix={}=/registry", path.display())));
    let mut cargo = toolchain.cargo();
    cargo
        .current_dir(&stage)
        .args(["build", "--release", "--locked", "--quiet", "--target", "bpfel-unknown-none"])
        .env("CARGO_TARGET_DIR", &output)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER");
    let status = cargo.status().context("running cargo for the BPF target")?;
    ensure!(status.success(), "the kernel programs do not build");
    let (mut objects, mut entries) = (BTreeMap::new(), BTreeMap::new());
    for program in PROGRAMS {
        let name = object_name(program);
        let stripped = stage.join(&name);
        let built = output.join("bpfel-unknown-none/release").join(program);
        let status = Command::new(&toolchain.strip).arg("-g").arg("-o").arg(&stripped).arg(&built).status()?;
        ensure!(status.success(), "{} failed", toolchain.strip);
        let object = fs::read(&stripped)?;
        let entry = Object { sha256: hash(&object), bytes: object.len(), sources_sha256: sources_hash(root)? };
        entries.insert(name.clone(), entry);
        objects.insert(name, object);
    }
    Ok((objects, Lock { object: entries, tools: toolchain.versions()? }))
}

/// Copies the sources. The output folder inside the stage stays, so a second build is quick.
fn stage_sources(root: &Path, stage: &Path) -> anyhow::Result<()> {
    for folder in ["src", "shared"] {
        match fs::remove_dir_all(stage.join(folder)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    fs::create_dir_all(stage.join("shared"))?;
    let manifest = fs::read_to_string(root.join("kernel/programs/Cargo.toml"))?;
    ensure!(manifest.contains("\"../shared\""), "kernel/programs/Cargo.toml does not name ../shared");
    fs::write(stage.join("Cargo.toml"), manifest.replace("\"../shared\"", "\"shared\""))?;
    fs::copy(root.join("kernel/programs/Cargo.lock"), stage.join("Cargo.lock"))?;
    fs::write(stage.join("shared/Cargo.toml"), SHARED_MANIFEST)?;
    for (from, to) in [("kernel/programs/src", "src"), ("kernel/shared/src", "shared/src")] {
        for file in files(&root.join(from))? {
            let relative = file.strip_prefix(root.join(from))?.to_path_buf();
            let copy = stage.join(to).join(relative);
            if let Some(parent) = copy.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::copy(&file, copy)?;
        }
    }
    Ok(())
}

/// All files under a path (or the path itself) that the object is made of, sorted.
fn files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let test_only = path.file_name().is_some_and(|name| TEST_ONLY.iter().any(|test| name == *test));
    if path.is_file() && !test_only {
        return Ok(vec![path.to_path_buf()]);
    }
    if test_only {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path).with_context(|| format!("reading {}", path.display()))? {
        found.extend(files(&entry?.path())?);
    }
    found.sort();
    Ok(found)
}

/// Hash of names and contents of all sources.
fn sources_hash(root: &Path) -> anyhow::Result<String> {
    let mut hasher = Sha256::new();
    hasher.update(SHARED_MANIFEST);
    for source in SOURCES {
        for file in files(&root.join(source))? {
            let name = file.strip_prefix(root)?.display().to_string();
            let bytes = fs::read(&file)?;
            hasher.update((name.len() as u64).to_le_bytes());
            hasher.update(name);
            hasher.update((bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        }
    }
    Ok(hex::encode(hasher.finalize()))
}

fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn lock_text(lock: &Lock) -> anyhow::Result<String> {
    Ok(format!("# Written by `cargo xtask kernel build`, checked by `cargo xtask kernel verify`.\n\n{}", toml::to_string(lock)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_round_trip() {
        let object = Object { sha256: "ab".into(), bytes: 3, sources_sha256: "cd".into() };
        let lock = Lock { object: [("guard.o".into(), object)].into(), tools: [("rustc".into(), "1".into())].into() };
        assert_eq!(toml::from_str::<Lock>(&lock_text(&lock).unwrap()).unwrap(), lock);
    }

    #[test]
    fn sources_hash_sees_names_and_contents() {
        let root = crate::root();
        assert_eq!(sources_hash(&root).unwrap(), sources_hash(&root).unwrap());
        let listed = files(&root.join("kernel/shared/src")).unwrap();
        assert!(listed.iter().any(|file| file.ends_with("verdict.rs")));
    }
}
