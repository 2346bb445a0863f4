//! The command line.

pub(crate) mod config;
mod detach;
mod flows;
mod list;
mod out;
mod peers;
mod reload;
pub(crate) mod run;
mod show;
mod top;
mod values;

use clap::{Args, Parser, Subcommand};
use guard::{Client, ClientError, Prefix, Response, kernel::duration, protocol::Request};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use types::Offence;

/// A firewall for the ports of a peer-to-peer node, at the first instruction of the network stack.
#[derive(Parser)]
#[command(name = "ebpf-guard", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// How to reach a running guard.
#[derive(Args)]
struct Reach {
    /// Socket of the running guard.
    #[arg(long, default_value = "/run/ebpf-guard/guard.sock")]
    socket: PathBuf,
    /// Machine-readable output.
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Attach the filter and serve the socket until told to stop. On SIGTERM the filter stays; `detach` takes it off.
    Run(Box<run::Run>),
    /// Read a configuration file as `run` would, and say what comes of it. Changes nothing.
    CheckConfig {
        /// The file.
        file: PathBuf,
    },
    /// Have the running guard read its configuration file again: all of what changed, or, if one key can't change live, nothing.
    Reload {
        #[command(flatten)]
        reach: Reach,
    },
    /// Mode, interface and counters.
    Status {
        #[command(flatten)]
        reach: Reach,
    },
    /// One line a peer: what the kernel knows about its connection, its packets, its drops.
    Peers {
        #[command(flatten)]
        reach: Reach,
    },
    /// One line a flow: whose it is, a validator's stake and share, what the flow may send.
    Flows {
        #[command(flatten)]
        reach: Reach,
    },
    /// Switch the mode: off, shadow (count only) or enforce.
    Mode {
        /// off, shadow or enforce.
        mode: String,
        #[command(flatten)]
        reach: Reach,
    },
    /// Enforce for a while only: unless `confirm` follows in time, the kernel stops dropping by itself.
    Enforce {
        /// How long: 60s, 10m, at most 1d.
        #[arg(long = "for", value_parser = duration::parse)]
        duration: Duration,
        #[command(flatten)]
        reach: Reach,
    },
    /// Keep what `enforce --for` has begun.
    Confirm {
        #[command(flatten)]
        reach: Reach,
    },
    /// Switch the SYN proxy: off, on (SYNs above the total of handshakes are answered with a cookie) or all (above any budget of theirs).
    SynProxy {
        /// off, on or all.
        state: String,
        #[command(flatten)]
        reach: Reach,
    },
    /// List the budgets, strangers' and validators': packets a second and at once.
    Budgets {
        #[command(flatten)]
        reach: Reach,
    },
    /// Set one of the budgets; it holds from the next packet on.
    Budget {
        /// As `budgets` lists it.
        name: String,
        /// Packets a second.
        rate: u32,
        /// Packets at once; 0 = no limit.
        burst: u32,
        /// Smaller for so long only: 30s, at most 10m; then the guard gives back what it was.
        #[arg(long = "for", value_parser = duration::parse)]
        duration: Option<Duration>,
        #[command(flatten)]
        reach: Reach,
    },
    /// The kernel's verdict on one packet, with the steps it took. Takes a token of a budget and counts a ban's hit, as the packet would.
    TestRun {
        /// The Ethernet frame, in hexadecimal.
        #[arg(long)]
        packet: String,
        #[command(flatten)]
        reach: Reach,
    },
    /// Ban an address or range for a while.
    Ban {
        /// ADDRESS or ADDRESS/LENGTH; an IPv6 address stands for its /64.
        address: Prefix,
        /// How long: 500ms, 60s, 10m, 2h, 1d.
        #[arg(long, value_parser = duration::parse)]
        ttl: Duration,
        /// Twice as long for each ban in a row that it had.
        #[arg(long)]
        escalate: bool,
        /// A note for whoever reads the list.
        #[arg(long, default_value = "")]
        note: String,
        #[command(flatten)]
        reach: Reach,
    },
    /// End a ban.
    Unban {
        /// As it was banned.
        address: Prefix,
        #[command(flatten)]
        reach: Reach,
    },
    /// List the bans.
    Bans {
        #[command(flatten)]
        reach: Reach,
    },
    /// Load or drop a whole list of prefixes.
    List {
        #[command(subcommand)]
        command: list::ListCommand,
    },
    /// The lists in force.
    Lists {
        #[command(flatten)]
        reach: Reach,
    },
    /// Take the filter off and remove every pin, with or without a running guard.
    Detach(detach::Detach),
    /// What the guard sees, live: verdicts a second, sources, peers, bans.
    Top(top::Top),
    /// Follow sampled drops, one line each.
    Events {
        #[command(flatten)]
        reach: Reach,
    },
}

impl Cli {
    /// Runs the command. Whoever reads its output may have read enough.
    pub fn run(self) -> anyhow::Result<()> {
        match self.command.run() {
            Err(error) if out::reader_gone(&error) => Ok(()),
            result => result,
        }
    }
}

impl Command {
    fn run(self) -> anyhow::Result<()> {
        match self {
            Command::Run(run) => run.run(),
            Command::CheckConfig { file } => check_config(&file),
            Command::Reload { reach } => done(&reach, &Request::Reload {}),
            Command::Status { reach } => show::status(&reach.client()?.stats(true)?, reach.json),
            Command::Peers { reach } => peers::show(&reach.client()?.stats(true)?.rows, reach.json),
            Command::Flows { reach } => flows::show(&mut reach.client()?, reach.json),
            Command::Mode { mode, reach } => done(&reach, &Request::Mode { mode }),
            Command::Enforce { duration, reach } => {
                done(&reach, &Request::Enforce { for_ms: duration.as_millis().min(u64::MAX as u128) as u64 })
            }
            Command::Confirm { reach } => done(&reach, &Request::Confirm {}),
            Command::SynProxy { state, reach } => done(&reach, &Request::SynProxy { state }),
            Command::Budgets { reach } => show::response(&reach.client()?.ask(&Request::Budgets {})?, reach.json),
            Command::Budget { name, rate, burst, duration, reach } => {
                let for_ms = duration.map(|duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
                done(&reach, &Request::Budget { name, rate, burst, for_ms })
            }
            Command::TestRun { packet, reach } => show::response(&reach.client()?.ask(&Request::TestRun { packet })?, reach.json),
            Command::Ban { address, ttl, note, escalate, reach } => {
                let ttl_ms = ttl.as_millis().min(u64::MAX as u128) as u64;
                let request = Request::Ban { address, ttl_ms, offence: Offence::Manual, note, escalate };
                show::response(&reach.client()?.ask(&request)?, reach.json)
            }
            Command::Unban { address, reach } => done(&reach, &Request::Unban { address }),
            Command::Bans { reach } => bans(&reach),
            Command::List { command } => command.run(),
            Command::Lists { reach } => show::response(&reach.client()?.ask(&Request::Lists {})?, reach.json),
            Command::Detach(detach) => detach.run(),
            Command::Top(top) => top.run(),
            Command::Events { reach } => events(&reach),
        }
    }
}

impl Reach {
    fn client(&self) -> Result<Client, ClientError> {
        Client::connect(&self.socket)
    }
}

fn done(reach: &Reach, request: &Request) -> anyhow::Result<()> {
    show::response(&reach.client()?.ask(request)?, reach.json)
}

fn bans(reach: &Reach) -> anyhow::Result<()> {
    let bans = reach.client()?.bans()?;
    let total = bans.len() as u64;
    show::response(&Response::Bans { bans, total }, reach.json)
}

fn check_config(file: &Path) -> anyhow::Result<()> {
    let run = run::Run::of_file(file);
    let settings = config::Settings::read(&run)?;
    show::settings(&settings)
}

fn events(reach: &Reach) -> anyhow::Result<()> {
    let mut client = reach.client()?;
    client.subscribe()?;
    client.set_timeout(None)?;
    loop {
        show::event(&client.event()?, reach.json)?;
    }
}
