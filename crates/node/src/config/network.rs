//! `[network.limits]`: who may have a seat.

use serde::Deserialize;

use super::duration::Span;
use super::{ConfigError, value};

/// Each option's meaning is with its namesake in [`network::Limits`], its default there, too.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLimits {
    strangers_max: Option<usize>,
    strangers_per_source_max: Option<usize>,
    strangers_per_prefix_max: Option<usize>,
    identities_per_prefix_max: Option<usize>,
    identities_window: Option<Span>,
    pending_max: Option<usize>,
    pending_per_source_max: Option<usize>,
    connections_per_source_max: Option<usize>,
    connections_per_prefix_max: Option<usize>,
    flood_arrivals_per_s: Option<u64>,
    flood_pending_max: Option<usize>,
    flood_calm: Option<Span>,
}

impl RawLimits {
    pub fn validate(self, peers_max: usize) -> Result<network::Limits, ConfigError> {
        let mut limits = network::Limits { peers_max, ..network::Limits::default() };
        // Half of the seats are for validators and for those whom we dial.
        limits.strangers_max = self.strangers_max.unwrap_or(peers_max.div_ceil(2));
        take(&mut limits.strangers_per_source_max, self.strangers_per_source_max);
        take(&mut limits.strangers_per_prefix_max, self.strangers_per_prefix_max);
        take(&mut limits.identities_per_prefix_max, self.identities_per_prefix_max);
        take(&mut limits.identities_window, self.identities_window.map(|span| span.0));
        take(&mut limits.pending_max, self.pending_max);
        take(&mut limits.pending_per_source_max, self.pending_per_source_max);
        take(&mut limits.connections_per_source_max, self.connections_per_source_max);
        take(&mut limits.connections_per_prefix_max, self.connections_per_prefix_max);
        take(&mut limits.flood_arrivals_per_s, self.flood_arrivals_per_s);
        take(&mut limits.flood_pending_max, self.flood_pending_max);
        take(&mut limits.flood_calm, self.flood_calm.map(|span| span.0));
        if peers_max > 1 && limits.strangers_max >= peers_max {
            return Err(value(
                "network.limits.strangers_max",
                "below network.peers_max: some seats are for validators and for peers",
            ));
        }
        limits.check().map_err(|error| match error {
            network::ConfigError::Limit("peers_max") => value("network.peers_max", "at least 1"),
            network::ConfigError::Limit(name) => {
                value(format!("network.limits.{name}"), "is too small, or does not fit the others")
            }
            error => value("network.limits", error.to_string()),
        })?;
        Ok(limits)
    }
}

fn take<T>(limit: &mut T, configured: Option<T>) {
    if let Some(configured) = configured {
        *limit = configured;
    }
}
