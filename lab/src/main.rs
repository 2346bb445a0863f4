//! `ebpf-lab`: runs a devnet on this machine, and attacks it.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Real nodes under real faults, on this machine.
#[derive(Debug, Parser)]
#[command(name = "ebpf-lab", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a network of validators with load, and show it live.
    Devnet(lab::devnet::Options),
    /// Attack a running devnet.
    Attack {
        #[command(subcommand)]
        attack: lab::attack::Attack,
    },
    /// Measure devnets of its own.
    Bench {
        #[command(subcommand)]
        bench: lab::bench::Bench,
    },
    /// Enter a namespace, drop rights, become a program. For the runner's own use.
    #[command(hide = true)]
    Launch(lab::launch::Launch),
}

fn main() -> ExitCode {
    let good = match Cli::parse().command {
        Command::Devnet(options) => lab::devnet::run(&options),
        Command::Attack { attack } => lab::attack::run(&attack),
        Command::Bench { bench } => lab::bench::run(&bench),
        Command::Launch(launch) => lab::launch::launch(&launch).map(|never| match never {}),
    };
    match good {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ebpf-lab: {error:#}");
            ExitCode::from(2)
        }
    }
}
