//! `ebpf-guard`: the only process of the project with capabilities. See `ebpf-guard --help`.

use clap::Parser;
use guard::cli;

fn main() -> std::process::ExitCode {
    match cli::Cli::parse().run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ebpf-guard: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
