//! Durations in the configuration: `"60s"`, `"10m"`, `"1h 30m"`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error};

/// A duration of whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span(pub Duration);

impl Span {
    pub fn ms(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parsed = humantime::parse_duration(&text);
        parsed
            .map(Span)
            .map_err(|error| D::Error::custom(format!("'{text}' is no duration ({error}); write \"60s\", \"10m\" or \"1h\"")))
    }
}
