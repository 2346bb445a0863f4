//! Values that mean the same on the command line and in the configuration file.

use guard::{
    Prefix,
    kernel::{attach::Preference, budgets, duration, flows::Budget, ports::Ports},
};
use kernel_shared::{
    control::{Mode, SynProxy},
    strangers,
};
use serde::{Deserialize, Deserializer, de::Error};
use std::time::Duration;

/// What can be read from a text.
pub trait FromText: Sized {
    /// Reads it; what is wrong with it otherwise.
    fn from_text(text: &str) -> Result<Self, String>;
}

/// A value of the file that is written as a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text<T>(pub T);

impl<'de, T: FromText> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text<T>, D::Error> {
        let text = String::deserialize(deserializer)?;
        T::from_text(&text).map(Text).map_err(D::Error::custom)
    }
}

/// A span of time that is not nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromText for Mode {
    fn from_text(text: &str) -> Result<Mode, String> {
        Mode::from_name(text).ok_or_else(|| "a mode is off, shadow or enforce".to_string())
    }
}

impl FromText for SynProxy {
    fn from_text(text: &str) -> Result<SynProxy, String> {
        SynProxy::from_name(text).ok_or_else(|| "the SYN proxy is off, on or all".to_string())
    }
}

impl FromText for Preference {
    fn from_text(text: &str) -> Result<Preference, String> {
        match text {
            "auto" => Ok(Preference::Auto),
            "native" => Ok(Preference::Native),
            "generic" => Ok(Preference::Generic),
            "tcx" => Ok(Preference::Tcx),
            _ => Err("an XDP mode is native, generic, tcx or auto".to_string()),
        }
    }
}

impl FromText for Ports {
    fn from_text(text: &str) -> Result<Ports, String> {
        text.parse()
    }
}

impl FromText for Prefix {
    fn from_text(text: &str) -> Result<Prefix, String> {
        text.parse().map_err(|error: guard::prefix::PrefixError| error.to_string())
    }
}

impl FromText for Span {
    fn from_text(text: &str) -> Result<Span, String> {
        match duration::parse(text)? {
            Duration::ZERO => Err("this must be longer than nothing".to_string()),
            span => Ok(Span(span)),
        }
    }
}

/// A budget of strangers, checked.
pub fn budget_of(name: &str, rate: u32, burst: u32) -> Result<(strangers::Budget, Budget), String> {
    let Some(budget) = strangers::Budget::from_name(name) else {
        let names: Vec<&str> = strangers::Budget::ALL.into_iter().map(strangers::Budget::as_str).collect();
        return Err(format!("'{name}' is no budget: {}", names.join(", ")));
    };
    match budgets::refusal(rate, burst) {
        Some(message) => Err(message),
        None => Ok((budget, Budget { rate, burst })),
    }
}

/// Reads `NAME=RATE/BURST`.
pub fn budget(text: &str) -> Result<(strangers::Budget, Budget), String> {
    let parts = text.split_once('=').and_then(|(name, value)| Some((name, value.split_once('/')?)));
    let (name, (rate, burst)) = parts.ok_or("a budget is NAME=RATE/BURST")?;
    let number = |text: &str| text.parse::<u32>().map_err(|_| format!("'{text}' is no number of packets"));
    budget_of(name, number(rate)?, number(burst)?)
}

/// A group, by number or by name.
pub fn group(text: &str) -> Result<u32, String> {
    if let Ok(gid) = text.parse() {
        return Ok(gid);
    }
    match nix::unistd::Group::from_name(text) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => Err(format!("there is no group '{text}'")),
        Err(error) => Err(format!("group '{text}' can't be looked up: {error}")),
    }
}

/// A user, by number or by name.
pub fn user(text: &str) -> Result<u32, String> {
    if let Ok(uid) = text.parse() {
        return Ok(uid);
    }
    match nix::unistd::User::from_name(text) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        Ok(None) => Err(format!("there is no user '{text}'")),
        Err(error) => Err(format!("user '{text}' can't be looked up: {error}")),
    }
}
