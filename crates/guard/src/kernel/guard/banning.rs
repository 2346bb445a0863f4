//! Bans, as requests and the lines of ban files ask for them.

use super::{BAN_TTL_MS_MAX, BANS_PER_ANSWER, ErrorCode, Guard, Refusal, Response, TEXT_BYTES_MAX, bans, refuse, unix_ms};
use crate::Prefix;
use types::Offence;

/// A ban that somebody wants.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// As it is banned: widened.
    pub(super) prefix: Prefix,
    pub(super) ttl_ms: u64,
    pub(super) offence: Offence,
    pub(super) note: &'a str,
}

/// What came of it.
struct Put {
    until_unix_ms: u64,
    flows_deleted: u32,
    /// Whether it changed the ban; false: the one that there was ends later, and stays.
    taken: bool,
}

/// Whether an operator has decided so. What is no decision is found out by a machine, and shortens no ban.
const fn is_decision(offence: Offence) -> bool {
    matches!(offence, Offence::Manual | Offence::List)
}

impl Guard {
    /// Bans for a request. With `escalate` for twice as long for each ban in a row; one that changes nothing is none.
    pub(super) fn ban(&mut self, wanted: Wanted<'_>, escalate: bool) -> Result<Response, Refusal> {
        self.check_ban(&wanted)?;
        let (prefix, now_ms) = (wanted.prefix, unix_ms());
        let ttl_ms = match escalate {
            true => self.strikes.escalated(&prefix, wanted.ttl_ms, BAN_TTL_MS_MAX, now_ms),
            false => wanted.ttl_ms,
        };
        let Put { until_unix_ms, flows_deleted, taken } = self.put_ban(Wanted { ttl_ms, ..wanted }, now_ms)?;
        if taken {
            self.strikes.count(prefix, until_unix_ms, now_ms);
        }
        Ok(Response::Banned { address: prefix, until_unix_ms, flows_deleted })
    }

    /// Bans what a line of a ban file names, or renews its ban. However often it is renewed, it is no ban in a row.
    pub fn ban_line(&mut self, address: Prefix, ttl_ms: u64, note: &str) -> Result<(), String> {
        let wanted = Wanted { prefix: address.widened(), ttl_ms, offence: Offence::Manual, note };
        let put = self.check_ban(&wanted).and_then(|()| self.put_ban(wanted, unix_ms()));
        put.map(drop).map_err(|refusal| refusal.message)
    }

    fn check_ban(&self, Wanted { prefix, ttl_ms, note, .. }: &Wanted<'_>) -> Result<(), Refusal> {
        if *ttl_ms == 0 || *ttl_ms > BAN_TTL_MS_MAX {
            return refuse(ErrorCode::Limit, format!("a ban lasts 1 to {BAN_TTL_MS_MAX} ms"));
        }
        if note.len() > TEXT_BYTES_MAX {
            return refuse(ErrorCode::Limit, format!("a note has at most {TEXT_BYTES_MAX} bytes"));
        }
        if let Some(message) = bans::too_wide(prefix) {
            return refuse(ErrorCode::Limit, message);
        }
        if let Some(range) = self.options.floor.iter().find(|range| range.overlaps(prefix)) {
            return refuse(ErrorCode::Floor, format!("{prefix} touches the floor range {range}: the floor can't be banned"));
        }
        if let Some((host, label)) = self.flows.floor_in(prefix) {
            let message = format!("{prefix} holds the floor flow of '{label}' at {host}: the floor can't be banned");
            return refuse(ErrorCode::Floor, message);
        }
        Ok(())
    }

    fn put_ban(&mut self, Wanted { prefix, ttl_ms, offence, note }: Wanted<'_>, now_ms: u64) -> Result<Put, Refusal> {
        let now = self.clock.now(&self.tables)?;
        let expiry = now.saturating_add(self.clock.ticks(ttl_ms));
        let later = self.bans.end(&prefix).filter(|end| !is_decision(offence) && *end > expiry);
        if later.is_none() {
            self.bans.insert(&self.tables, prefix, offence, expiry, note)?;
            self.changed.bans = true;
        }
        let flows_deleted = self.flows.remove_in(&self.tables, &prefix)?;
        let lasts_ms = later.map_or(ttl_ms, |end| self.clock.ms(end - now));
        let (offence, kept) = (offence.as_str(), later.is_some());
        tracing::info!(%prefix, offence, lasts_ms, kept, flows_deleted, note, "banned");
        Ok(Put { until_unix_ms: now_ms.saturating_add(lasts_ms), flows_deleted, taken: !kept })
    }

    pub(super) fn show_bans(&self, skip: u32) -> Result<Response, Refusal> {
        let now = self.clock.now(&self.tables)?;
        let bans = self.bans.page(&self.tables, &self.clock, now, (skip as usize, BANS_PER_ANSWER))?;
        Ok(Response::Bans { bans, total: self.bans.in_force(now) as u64 })
    }
}
