//! The configuration: the file as written ([`file`]), flags over it, and what comes of both, validated ([`Settings`]).

mod file;

use super::run::Run;
use file::File;
use guard::kernel::{
    Options,
    access::Access,
    attach::Preference,
    bpffs,
    egress::EgressOptions,
    flows::Budgets,
    ports::{self, Ports},
    state,
    watch::{BanFile, FILES_MAX},
};
use kernel_shared::abi::LISTS_MAX;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// Where the socket is unless told otherwise.
pub const SOCKET: &str = "/run/ebpf-guard/guard.sock";
/// Name of the pins unless told otherwise.
pub const INSTANCE: &str = "default";
/// Age of the last heartbeat at which known flows lapse unless told otherwise.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(30);
/// Age of saved hits at which they are saved again unless told otherwise.
const SAVE_HITS_EVERY: Duration = Duration::from_secs(300);
/// Every 64th drop is told as an event unless told otherwise.
const EVENT_SHIFT: u8 = 6;
/// Every 8th packet of a flow is measured unless told otherwise.
const LATENCY_SHIFT: u8 = 3;

/// Why a configuration is none. Every text names the file, the line and the key.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("{path} can't be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A value, or the form of the file.
    #[error("{path}:{line}: {key}{message}")]
    Value {
        /// The file.
        path: String,
        /// Line, from 1.
        line: usize,
        /// The key and a colon, or nothing.
        key: String,
        /// What is wrong.
        message: String,
    },
    /// Something that is nowhere, neither in the file nor among the flags, or that doesn't fit together.
    #[error("{0}")]
    Whole(String),
}

/// Everything that `run` needs to know, validated.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The guard's own.
    pub options: Options,
    /// Where to listen.
    pub socket: PathBuf,
    /// Who may write there.
    pub access: Access,
    /// Network namespace to enter first.
    pub netns: Option<PathBuf>,
    /// Where Prometheus may scrape.
    pub metrics: Option<SocketAddr>,
    /// Watched files.
    pub ban_files: Vec<BanFile>,
}

impl Settings {
    /// Reads the file, if flags name one, and lays the flags over it.
    pub fn read(run: &Run) -> Result<Settings, ConfigError> {
        match &run.config {
            None => Settings::merge(run, File::default()),
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
                Settings::of(run, path, &text)
            }
        }
    }

    /// The same from a text.
    pub fn of(run: &Run, path: &Path, text: &str) -> Result<Settings, ConfigError> {
        let file = file::parse(path, text)?;
        Settings::merge(run, file).map_err(|error| match error {
            ConfigError::Whole(message) => ConfigError::Whole(format!("{}: {message}", path.display())),
            error => error,
        })
    }

    fn merge(run: &Run, file: File) -> Result<Settings, ConfigError> {
        let whole = |message: &str| ConfigError::Whole(message.to_string());
        let interface = run.iface.clone().or(file.interface).ok_or_else(|| whole("interface: no interface to filter"))?;
        let list: Vec<Ports> = if run.protect.is_empty() { file.protect } else { run.protect.clone() };
        let (protect, quic) = ports::spell_out(&list).map_err(|message| whole(&format!("protect: {message}")))?;
        let instance = run.instance.clone().or(file.instance).unwrap_or_else(|| INSTANCE.to_string());
        if !bpffs::is_instance_name(&instance) {
            return Err(ConfigError::Whole(format!(
                "instance: '{instance}' is no instance name: letters, digits, '-', '_', '.', at most 64"
            )));
        }
        if file.ban_files.len() > FILES_MAX {
            return Err(ConfigError::Whole(format!("ban_files: {} files, {FILES_MAX} is the most", file.ban_files.len())));
        }
        let mut names: Vec<&str> = file.ban_files.iter().filter_map(|file| file.list.as_deref()).collect();
        if names.len() > LISTS_MAX as usize {
            return Err(ConfigError::Whole(format!("ban_files: {} lists, {LISTS_MAX} is the most", names.len())));
        }
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(ConfigError::Whole(format!("ban_files: two files are the list '{}': give one another name", twice[0])));
        }
        let cgroup = run.cgroup.clone().or(file.cgroup);
        let flagged = run.egress.then(|| (run.egress_allow.clone(), !run.egress_no_loopback));
        let egress = match (flagged.or(file.egress), &cgroup) {
            (None, _) => None,
            (Some(_), None) => return Err(whole("egress: it guards a control group: name it as `cgroup`")),
            (Some((allow, loopback)), Some(cgroup)) => Some(EgressOptions { cgroup: cgroup.clone(), allow, loopback }),
        };
        // A flag's budget comes last and wins.
        let strangers = file.budgets.into_iter().chain(run.budget.iter().copied()).collect();
        let either = |flags: &[u32], file: Vec<u32>| if flags.is_empty() { file } else { flags.to_vec() };
        Ok(Settings {
            options: Options {
                interface,
                protect,
                quic,
                mode: run.mode.or(file.mode),
                state: Some(run.state.clone().or(file.state).unwrap_or_else(|| state::DEFAULT.into()).join(&instance)),
                instance,
                bpffs: run.bpffs.clone().or(file.bpffs).unwrap_or_else(|| bpffs::DEFAULT.into()),
                xdp: run.xdp.or(file.xdp).unwrap_or(Preference::Auto),
                floor: if run.floor.is_empty() { file.floor } else { run.floor.clone() },
                heartbeat_timeout: run
                    .heartbeat_timeout
                    .map(Duration::from_secs)
                    .or(file.heartbeat_timeout)
                    .unwrap_or(HEARTBEAT_TIMEOUT),
                save_hits_every: run.save_hits_every.map(Duration::from_secs).or(file.save_hits_every).unwrap_or(SAVE_HITS_EVERY),
                drop_unreadable: run.drop_unreadable.or(file.drop_unreadable).unwrap_or(true),
                event_shift: run.event_shift.or(file.event_shift).unwrap_or(EVENT_SHIFT),
                latency_shift: run.latency_shift.or(file.latency_shift).unwrap_or(LATENCY_SHIFT),
                budgets: Budgets::default(),
                syn_proxy: run.syn_proxy.or(file.syn_proxy),
                strangers,
                egress,
                cgroup,
            },
            socket: run.socket.clone().or(file.socket).unwrap_or_else(|| SOCKET.into()),
            access: Access { uids: either(&run.allow_uid, file.allow_uid), gids: either(&run.allow_group, file.allow_group) },
            netns: run.netns.clone().or(file.netns),
            metrics: run.metrics.or(file.metrics),
            ban_files: file.ban_files,
        })
    }

    /// Names of what differs here and can't be changed while the process runs; the guard's own are its own business.
    pub fn fixed(&self, new: &Settings) -> Vec<&'static str> {
        let differences =
            [("socket", self.socket != new.socket), ("netns", self.netns != new.netns), ("metrics", self.metrics != new.metrics)];
        differences.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }
}

#[cfg(test)]
mod tests;
