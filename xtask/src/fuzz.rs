//! `cargo xtask fuzz`: every fuzz target for a while, and the native verdict against the kernel's with a new seed.
//!
//! The targets are libFuzzer's, and cargo-fuzz can drive them. Here they are built with the stable compiler: coverage is an LLVM pass, and only
//! the address sanitizer, which safe code gains little from, would need a nightly.

use anyhow::{Context, ensure};
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

const TARGETS: [&str; 5] = ["packet", "request", "prefix", "list", "config"];
/// Longest input, bytes.
const BYTES_MAX: u32 = 4096;
/// Packets that are compared for each second asked for.
const COMPARED_PER_SECOND: u64 = 10_000;

const FLAGS: [&str; 7] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];

fn run_it(command: &mut Command, what: &str) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("running {what}"))?;
    ensure!(status.success(), "{what} failed");
    Ok(())
}

/// The compiler's own target: with a target named, build scripts are not instrumented.
fn host() -> anyhow::Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("asking rustc")?;
    let text = String::from_utf8(output.stdout)?;
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(line.context("rustc names no host")?.to_string())
}

/// Builds and runs all targets, each for so many seconds. What they found stays in `target/fuzz/corpus`, crashes in `target/fuzz/artifacts`.
pub fn run(root: &Path, seconds: u32) -> anyhow::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |folder| root.join(PathBuf::from(folder)));
    let (folder, host) = (target.join("fuzz"), host()?);
    let mut build = Command::new(&cargo);
    build.current_dir(root.join("fuzz")).args(["build", "--release", "--locked", "--quiet", "--bins", "--target", &host]);
    build.arg("--target-dir").arg(&folder).env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f")).env_remove("RUSTFLAGS");
    run_it(&mut build, "the build of the fuzz targets")?;
    let programs = folder.join(&host).join("release");
    let corpus = folder.join("corpus");
    let mut seeds = Command::new(&cargo);
    seeds.current_dir(root).args(["run", "--quiet", "--locked", "--package", "guard", "--features", "fuzz"]);
    run_it(seeds.args(["--example", "fuzz_seeds", "--"]).arg(&corpus), "the writing of seeds")?;
    let artifacts = folder.join("artifacts");
    std::fs::create_dir_all(&artifacts)?;
    for name in TARGETS {
        println!("fuzzing {name} for {seconds} s");
        let mut fuzzer = Command::new(programs.join(name));
        fuzzer.arg(corpus.join(name)).arg(format!("-max_total_time={seconds}")).arg(format!("-max_len={BYTES_MAX}"));
        fuzzer.arg(format!("-artifact_prefix={}/{name}-", artifacts.display())).args(["-print_final_stats=1", "-verbosity=0"]);
        run_it(&mut fuzzer, name)?;
    }
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock")?.as_secs();
    println!("comparing the verdict with the kernel's, seed {seed}");
    let mut compare = Command::new(&cargo);
    compare.current_dir(root).args([
        "test",
        "--quiet",
        "--locked",
        "--package",
        "guard",
        "--test",
        "it",
        "--",
        "bent_packets",
        "--nocapture",
    ]);
    compare.env("EBPF_FUZZ_SEED", seed.to_string());
    compare.env("EBPF_FUZZ_INPUTS", (COMPARED_PER_SECOND * u64::from(seconds)).to_string());
    run_it(&mut compare, "the comparison with the kernel")
}
