//! Finding a compiler for the BPF target: Debian's, else a rustup nightly, else a hint what to install.

use anyhow::{Context, bail};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

/// Debian's `libstd-rust-web-dev-bpf` puts a prebuilt core for the BPF target here.
const DEBIAN_CORE: &str = "/usr/lib/rustlib/bpfel-unknown-none";
/// Where sources of Debian's core lie if they are installed. Its debug information names them in any case.
const DEBIAN_CORE_SOURCES: &str = "/usr/lib/rustlib/src/rust/library/core";
/// Runs a command without `/usr/src`, where those sources are linked to.
const WITHOUT_SOURCES: &str = "mount -t tmpfs tmpfs /usr/src && exec \"$@\"";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

const INSTALL: &str = "no toolchain for the BPF target. Install one of:\n  \
    Debian:  apt-get install rustc-web libstd-rust-web-dev-bpf llvm-22-dev llvm-22\n  \
    rustup:  rustup toolchain install nightly --component rust-src\n\
    and the linker:\n  \
    LLVM_PREFIX=$(llvm-config-22 --prefix) cargo install bpf-linker --version 0.13.0 --no-default-features --features llvm-22\n\
    (`cargo build` needs none of this: the objects are committed.)";

/// Compiler, linker and strip.
pub struct Toolchain {
    kind: Kind,
    /// The strip program.
    pub strip: String,
}

enum Kind {
    Debian,
    Nightly,
}

/// Finds a toolchain.
pub fn find() -> anyhow::Result<Toolchain> {
    let kind = if Path::new(DEBIAN_CORE).exists() && output(DEBIAN_RUSTC, &["--version"]).is_some() {
        Kind::Debian
    } else if nightly_has_source() {
        Kind::Nightly
    } else {
        bail!(INSTALL);
    };
    let strip = ["llvm-strip-22", "llvm-strip"].into_iter().find(|strip| output(strip, &["--version"]).is_some());
    match (strip, output("bpf-linker", &["--version"])) {
        (Some(strip), Some(_)) => Ok(Toolchain { kind, strip: strip.to_string() }),
        _ => bail!(INSTALL),
    }
}

fn nightly_has_source() -> bool {
    output("rustup", &["run", "nightly", "rustc", "--print", "sysroot"])
        .is_some_and(|sysroot| Path::new(&sysroot).join("lib/rustlib/src/rust/library/core").exists())
}

/// The trimmed output of a program that succeeds.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
}

/// A command that does not see sources of core: in a mount namespace of its own where they are installed.
fn without_core_sources(program: &str) -> Command {
    if !Path::new(DEBIAN_CORE_SOURCES).exists() {
        return Command::new(program);
    }
    let mut command = Command::new("unshare");
    if output("unshare", &["--mount", "true"]).is_none() {
        command.arg("--map-root-user");
    }
    command.args(["--mount", "sh", "-c", WITHOUT_SOURCES, "sh", program]);
    command
}

impl Toolchain {
    /// A cargo that compiles for the BPF target with this toolchain.
    pub fn cargo(&self) -> Command {
        match self.kind {
            Kind::Debian => {
                let mut cargo = without_core_sources("cargo");
                // Bootstrap: the target is a tier-3 one, and aya-ebpf uses unstable features of the compiler.
                cargo.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
                cargo
            }
            Kind::Nightly => {
                let mut cargo = Command::new("rustup");
                cargo.args(["run", "nightly", "cargo", "-Zbuild-std=core"]).env_remove("RUSTC");
                cargo
            }
        }
    }

    /// Versions of the tools, for the lock.
    pub fn versions(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let rustc = match self.kind {
            Kind::Debian => output(DEBIAN_RUSTC, &["--version"]),
            Kind::Nightly => output("rustup", &["run", "nightly", "rustc", "--version"]),
        };
        let strip = output(&self.strip, &["--version"]);
        let strip = strip
            .as_deref()
            .and_then(|text| text.lines().find(|line| line.contains("version")))
            .map(|line| line.trim().to_string());
        let versions = [("rustc", rustc), ("bpf-linker", output("bpf-linker", &["--version"])), ("strip", strip)];
        let named = versions.into_iter().map(|(tool, version)| {
            version.map(|version| (tool.to_string(), version)).with_context(|| format!("{tool} tells no version"))
        });
        named.collect()
    }
}

/// Folders that hold registry sources: their hashed names differ from machine to machine.
pub fn registries() -> Vec<PathBuf> {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let Some(sources) = home.map(|home| home.join("registry/src")) else { return Vec::new() };
    let entries = std::fs::read_dir(sources).map(|entries| entries.filter_map(Result::ok).map(|entry| entry.path()).collect());
    let mut folders: Vec<PathBuf> = entries.unwrap_or_default();
    folders.sort();
    folders
}
