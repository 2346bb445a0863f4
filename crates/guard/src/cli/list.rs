//! `ebpf-guard list`.

use super::{Reach, done, duration, show};
use anyhow::Context;
use clap::Subcommand;
use guard::{Request, Response};
use std::{fs::File, os::fd::AsFd, path::PathBuf, time::Duration};

/// What to do with a list.
#[derive(Subcommand)]
pub enum ListCommand {
    /// Ban every prefix of a file, all at once: a prefix a line, `#` and `;` begin comments. A list of the same name is replaced as a
    /// whole. What touches a floor range is cut out and counted.
    Load {
        /// Name of the list.
        name: String,
        /// File, or - for the standard input if that is a file or a pipe.
        file: PathBuf,
        /// How long: 60s, 10m, 2h, 7d, at most 30d.
        #[arg(long, value_parser = duration::parse, default_value = "7d")]
        ttl: Duration,
        /// Leave lines out that are no prefix, instead of refusing the list.
        #[arg(long)]
        skip_bad: bool,
        #[command(flatten)]
        reach: Reach,
    },
    /// End a list.
    Drop {
        /// Its name.
        name: String,
        #[command(flatten)]
        reach: Reach,
    },
}

impl ListCommand {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<()> {
        match self {
            ListCommand::Load { name, file, ttl, skip_bad, reach } => {
                let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
                let request = Request::ListLoad { name, ttl_ms, skip_bad };
                let mut client = reach.client()?;
                let list = if file.as_os_str() == "-" {
                    client.load_list(&request, std::io::stdin().as_fd())?
                } else {
                    let text = File::open(&file).with_context(|| format!("opening {}", file.display()))?;
                    client.load_list(&request, text.as_fd())?
                };
                show::response(&Response::Listed { list }, reach.json)
            }
            ListCommand::Drop { name, reach } => done(&reach, &Request::ListDrop { name }),
        }
    }
}
