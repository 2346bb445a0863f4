//! `ebpf-guard detach`: the filter off, with or without a running guard.

use super::{Reach, out, show};
use anyhow::Context;
use clap::Args;
use guard::{
    ClientError, Request, Response,
    kernel::{attach, bpffs},
};
use std::{
    io::Write,
    path::{Path, PathBuf},
};

/// Options of `detach`.
#[derive(Args)]
pub struct Detach {
    /// Instance whose filter it is.
    #[arg(long, default_value = "default")]
    instance: String,
    /// Directory of pins; without it, the default of `run` and the systemd unit's are both looked into.
    #[arg(long)]
    bpffs: Option<PathBuf>,
    #[command(flatten)]
    reach: Reach,
}

impl Detach {
    /// Asks a running guard of this instance to detach; whatever it left, or a dead one did, is removed here.
    pub fn run(self) -> anyhow::Result<()> {
        let roots = match &self.bpffs {
            Some(root) => vec![root.as_path()],
            None => vec![Path::new(bpffs::DEFAULT), Path::new(bpffs::UNIT)],
        };
        let mut found = self.ask()?;
        for root in &roots {
            let reading = || format!("reading {}", root.display());
            found |= !bpffs::directories(root, &self.instance).with_context(reading)?.is_empty();
            attach::detach(root, &self.instance)?.iter().for_each(|left| eprintln!("{left}"));
            bpffs::release(root).with_context(|| format!("unmounting {}", root.display()))?;
        }
        if found || self.reach.json {
            return show::response(&Response::Done {}, self.reach.json);
        }
        let places: Vec<String> = roots.iter().map(|root| root.display().to_string()).collect();
        writeln!(out::stdout(), "nothing to take off: instance '{}' has no pins in {}", self.instance, places.join(" or "))?;
        Ok(())
    }

    /// Whether a guard of this instance ran, and detached.
    fn ask(&self) -> anyhow::Result<bool> {
        let mut client = match self.reach.client() {
            Ok(client) => client,
            Err(ClientError::Connect { .. }) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let ours = client.stats(false)?.instance == self.instance;
        if ours {
            client.ask(&Request::Detach {})?;
        }
        Ok(ours)
    }
}
