//! The file as it is written. `packaging/guard.toml` documents every key.

use super::ConfigError;
use crate::cli::values::{self, FromText, Span, Text};
use guard::{
    Prefix,
    kernel::{attach::Preference, flows::Budget, lists, ports::Ports, watch::BanFile},
    protocol::BAN_TTL_MS_MAX,
};
use kernel_shared::{
    control::{Mode, SynProxy},
    strangers,
};
use serde::{Deserialize, Deserializer, de::Error};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// How long a ban of a line without a TTL outlives its line unless told otherwise.
const BAN_FILE_TTL: Duration = Duration::from_secs(24 * 3600);
/// Highest event sampling: every 2^31-th drop.
const EVENT_SHIFT_MAX: u8 = 31;

/// All keys. What is not named is left to flags and defaults.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    pub interface: Option<String>,
    #[serde(deserialize_with = "texts")]
    pub protect: Vec<Ports>,
    #[serde(deserialize_with = "text")]
    pub mode: Option<Mode>,
    pub instance: Option<String>,
    pub state: Option<PathBuf>,
    pub socket: Option<PathBuf>,
    pub bpffs: Option<PathBuf>,
    pub netns: Option<PathBuf>,
    #[serde(deserialize_with = "text")]
    pub xdp: Option<Preference>,
    #[serde(deserialize_with = "texts")]
    pub floor: Vec<Prefix>,
    #[serde(deserialize_with = "users")]
    pub allow_uid: Vec<u32>,
    #[serde(deserialize_with = "groups")]
    pub allow_group: Vec<u32>,
    #[serde(deserialize_with = "span")]
    pub heartbeat_timeout: Option<Duration>,
    #[serde(deserialize_with = "span")]
    pub save_hits_every: Option<Duration>,
    pub drop_unreadable: Option<bool>,
    #[serde(deserialize_with = "shift")]
    pub event_shift: Option<u8>,
    #[serde(deserialize_with = "shift")]
    pub latency_shift: Option<u8>,
    pub metrics: Option<SocketAddr>,
    #[serde(deserialize_with = "text")]
    pub syn_proxy: Option<SynProxy>,
    #[serde(deserialize_with = "budgets")]
    pub budgets: Vec<(strangers::Budget, Budget)>,
    #[serde(deserialize_with = "egress")]
    pub egress: Option<(Vec<Prefix>, bool)>,
    pub cgroup: Option<PathBuf>,
    #[serde(deserialize_with = "ban_files")]
    pub ban_files: Vec<BanFile>,
}

fn text<'de, D: Deserializer<'de>, T: FromText>(deserializer: D) -> Result<Option<T>, D::Error> {
    Ok(Some(Text::deserialize(deserializer)?.0))
}

fn texts<'de, D: Deserializer<'de>, T: FromText>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let texts: Vec<Text<T>> = Vec::deserialize(deserializer)?;
    Ok(texts.into_iter().map(|text| text.0).collect())
}

fn span<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    Ok(text::<D, Span>(deserializer)?.map(|span| span.0))
}

fn shift<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u8>, D::Error> {
    match u8::deserialize(deserializer)? {
        shift if shift <= EVENT_SHIFT_MAX => Ok(Some(shift)),
        shift => Err(D::Error::custom(format!("{shift} is more than {EVENT_SHIFT_MAX}"))),
    }
}

/// A user or a group: its number, or its name.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a number or a name")]
enum Id {
    Number(u32),
    Name(String),
}

fn ids<'de, D: Deserializer<'de>>(deserializer: D, of: fn(&str) -> Result<u32, String>) -> Result<Vec<u32>, D::Error> {
    let number = |id| match id {
        Id::Number(number) => Ok(number),
        Id::Name(name) => of(&name).map_err(D::Error::custom),
    };
    Vec::<Id>::deserialize(deserializer)?.into_iter().map(number).collect()
}

fn users<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u32>, D::Error> {
    ids(deserializer, values::user)
}

fn groups<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u32>, D::Error> {
    ids(deserializer, values::group)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBudget {
    rate: u32,
    burst: u32,
}

fn budgets<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(strangers::Budget, Budget)>, D::Error> {
    let raw: BTreeMap<String, RawBudget> = BTreeMap::deserialize(deserializer)?;
    let checked = |(name, raw): (String, RawBudget)| {
        values::budget_of(&name, raw.rate, raw.burst).map_err(|message| D::Error::custom(format!("{name}: {message}")))
    };
    raw.into_iter().map(checked).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEgress {
    #[serde(default, deserialize_with = "texts")]
    allow: Vec<Prefix>,
    #[serde(default = "yes")]
    loopback: bool,
}

const fn yes() -> bool {
    true
}

/// Prefixes that may be dialed all the same, and whether loopback may.
fn egress<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<(Vec<Prefix>, bool)>, D::Error> {
    let RawEgress { allow, loopback } = RawEgress::deserialize(deserializer)?;
    Ok(Some((allow, loopback)))
}

/// What a ban file is.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum As {
    #[default]
    Bans,
    List,
}

impl FromText for As {
    fn from_text(text: &str) -> Result<As, String> {
        match text {
            "manual" => Ok(As::Bans),
            "list" => Ok(As::List),
            _ => Err("a ban file is taken as manual (a ban a line) or as list (all at once)".to_string()),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBanFile {
    path: PathBuf,
    #[serde(default, deserialize_with = "span")]
    ttl: Option<Duration>,
    #[serde(default, rename = "as", deserialize_with = "text")]
    taken_as: Option<As>,
    #[serde(default)]
    name: Option<String>,
}

/// Name of a file's list: the one given, or the file's own without its ending.
fn list_name(raw: &RawBanFile) -> Result<Option<String>, String> {
    if raw.taken_as.unwrap_or_default() == As::Bans {
        return match raw.name {
            Some(_) => Err("name: only a file taken as list has a name".to_string()),
            None => Ok(None),
        };
    }
    let stem = || raw.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let name = raw.name.clone().unwrap_or_else(stem);
    match lists::is_name(&name) {
        true => Ok(Some(name)),
        false => Err(format!("name: '{name}' can't name a list (letters, digits, '-', '_', '.', at most 32): give it another")),
    }
}

fn ban_files<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<BanFile>, D::Error> {
    let checked = |raw: RawBanFile| {
        let ttl = raw.ttl.unwrap_or(BAN_FILE_TTL);
        if ttl < Duration::from_secs(1) || ttl.as_millis() > BAN_TTL_MS_MAX as u128 {
            return Err(D::Error::custom("ttl: a ban file's bans last 1 s to 30 days"));
        }
        if raw.path.file_name().is_none() {
            return Err(D::Error::custom(format!("path: '{}' names no file", raw.path.display())));
        }
        let list = list_name(&raw).map_err(D::Error::custom)?;
        Ok(BanFile { path: raw.path, ttl, list })
    };
    Vec::<RawBanFile>::deserialize(deserializer)?.into_iter().map(checked).collect()
}

/// Reads a file's text.
pub fn parse(path: &Path, text: &str) -> Result<File, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        let before = text.get(..offset).unwrap_or_default();
        ConfigError::Value {
            path: path.display().to_string(),
            line: before.matches('\n').count() + 1,
            key: key(text, offset).map_or(String::new(), |key| format!("{key}: ")),
            message: error.message().trim_end().replace('\n', "; "),
        }
    })
}

/// The key whose value holds this offset: the last `key =` or `[table]` that begins on its line or above.
fn key(text: &str, offset: usize) -> Option<&str> {
    let end = text.get(offset..)?.find('\n').map_or(text.len(), |length| offset + length);
    text.get(..end)?.lines().rev().find_map(|line| {
        let line = line.trim_start();
        let word = match line.strip_prefix('[') {
            // A value of an array may begin a line with a bracket, but not with one that a name follows.
            Some(rest) => rest.trim_start_matches('[').split(']').next()?,
            None => line.split_once('=')?.0,
        };
        let word = word.trim();
        let is_key = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        (!word.is_empty() && word.chars().all(is_key)).then_some(word)
    })
}
