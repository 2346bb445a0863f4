//! The socket's messages: one JSON object a line, each request answered by one response (`events` by a stream of lines).
//!
//! The contract is written down in `docs/spec/kernel-abi.md`. Unknown fields are errors, so that a typing mistake in a
//! ban is not a ban of something else.

use crate::Prefix;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use types::Offence;

mod info;

pub use info::*;

/// Longest line that either side accepts, bytes.
pub const LINE_BYTES_MAX: usize = 1 << 20;
/// Longest note or label, bytes.
pub const TEXT_BYTES_MAX: usize = 200;
/// Longest ban: 30 days. Every ban ends.
pub const BAN_TTL_MS_MAX: u64 = 30 * 24 * 3600 * 1000;

/// Longest trial of `enforce`: a day.
pub const TRIAL_MS_MAX: u64 = 24 * 3600 * 1000;
/// Highest rate of a budget, packets a second.
pub const BUDGET_RATE_MAX: u32 = 100_000_000;
/// Longest time that a budget may be set for, ms: ten minutes.
pub const SQUEEZE_MS_MAX: u64 = 600_000;
/// Smallest budget that may be set for a while, packets a second and at once: a flood must not shut honest newcomers out.
pub const SQUEEZE_RATE_MIN: u32 = 100;
/// Most flows in one answer: it has to fit into a line.
pub const FLOWS_PER_ANSWER: usize = 512;
/// Most bans in one answer, likewise.
pub const BANS_PER_ANSWER: usize = 512;
/// Most rows in one answer, likewise.
pub const ROWS_PER_ANSWER: usize = 128;
/// Most endpoints of a row that are told, likewise.
pub const ENDPOINTS_PER_ROW: usize = 32;
/// Deepest budget, packets.
pub const BUDGET_BURST_MAX: u32 = 4_000_000;

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP (and QUIC).
    Udp,
}

impl Protocol {
    /// Its number in an IP header.
    pub const fn number(self) -> u8 {
        match self {
            Protocol::Tcp => kernel_shared::abi::TCP,
            Protocol::Udp => kernel_shared::abi::UDP,
        }
    }

    /// The protocol with this number.
    pub const fn from_number(number: u8) -> Option<Protocol> {
        match number {
            kernel_shared::abi::TCP => Some(Protocol::Tcp),
            kernel_shared::abi::UDP => Some(Protocol::Udp),
            _ => None,
        }
    }

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

/// What a flow is announced as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowKind {
    /// A validator's, after proof-of-validator.
    Floor,
    /// An admitted peer's, after its handshake.
    Known,
    /// One that the node is about to open; lapses after 10 s.
    Dialing,
    /// A TCP connection that the node opened from a port that is not protected: it has a row for what the kernel's TCP knows, and a
    /// validator's address has its budgets; no packet is taken for one of it.
    Dialed,
}

impl FlowKind {
    /// Its name in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            FlowKind::Floor => "floor",
            FlowKind::Known => "known",
            FlowKind::Dialing => "dialing",
            FlowKind::Dialed => "dialed",
        }
    }
}

/// What a client asks. Those marked *write* need root or an allowed uid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Mode, interface, totals; no rows.
    Status {},
    /// All counters, and rows in the order of their numbers; [`ROWS_PER_ANSWER`] at the most, fewer only where there are no more.
    Stats {
        /// Leave out the rows before this one.
        #[serde(default, skip_serializing_if = "is_zero")]
        from: u32,
    },
    /// Bans, in the order of addresses; [`BANS_PER_ANSWER`] at the most.
    Bans {
        /// Leave out the first so many.
        #[serde(default, skip_serializing_if = "is_zero")]
        skip: u32,
    },
    /// *Write.* Ban a prefix for a while.
    Ban {
        /// Address, or address/length.
        address: Prefix,
        /// How long, ms: 1 to [`BAN_TTL_MS_MAX`].
        ttl_ms: u64,
        /// Why.
        offence: Offence,
        /// Free text for people.
        #[serde(default)]
        note: String,
        /// Twice as long for each ban in a row that this prefix had within a day of the end of the last, at most [`BAN_TTL_MS_MAX`].
        /// Lines of ban files don't count.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        escalate: bool,
    },
    /// *Write.* Put a list of prefixes in force, in the place of the one with this name. Its text is read from a descriptor that comes
    /// beside the request (SCM_RIGHTS).
    ListLoad {
        /// Its name: letters, digits, `-`, `_`, `.`, at most 32.
        name: String,
        /// How long, ms: 1 to [`BAN_TTL_MS_MAX`].
        ttl_ms: u64,
        /// Leave lines out that are no prefix, instead of refusing the list.
        #[serde(default)]
        skip_bad: bool,
    },
    /// *Write.* Take a list away.
    ListDrop {
        /// Its name.
        name: String,
    },
    /// The lists in force.
    Lists {},
    /// *Write.* End a ban.
    Unban {
        /// Address, or address/length, as it was banned.
        address: Prefix,
    },
    /// *Write.* Announce a flow; again with the same key replaces it.
    FlowAdd {
        /// Protocol.
        protocol: Protocol,
        /// Remote address.
        address: IpAddr,
        /// Remote port.
        port: u16,
        /// Class.
        class: FlowKind,
        /// Peer: flows with the same label share a row of counters.
        label: String,
        /// The part of all stake that the validator behind it has, in millionths: 1 to 1,000,000; for `floor` and `dialed` only. Its
        /// flows share what [`BudgetInfo`] `validators` holds by it. A floor flow without it has an equal share.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stake_ppm: Option<u32>,
    },
    /// Flows, in the order of protocol, address, port; [`FLOWS_PER_ANSWER`] at the most.
    Flows {
        /// Leave out the first so many.
        #[serde(default)]
        skip: u32,
    },
    /// *Write.* Withdraw a flow.
    FlowDel {
        /// Protocol.
        protocol: Protocol,
        /// Remote address.
        address: IpAddr,
        /// Remote port.
        port: u16,
    },
    /// *Write.* Withdraw all flows: what a node says when it starts.
    FlowsClear {},
    /// *Write.* Switch the mode.
    Mode {
        /// `off`, `shadow` or `enforce`.
        mode: String,
    },
    /// *Write.* Enforce for a while only: unless confirmed in time, drops end by themselves, also if nobody can reach this machine any more.
    Enforce {
        /// How long, ms: 1 to [`TRIAL_MS_MAX`].
        for_ms: u64,
    },
    /// *Write.* Keep what `enforce` has begun.
    Confirm {},
    /// *Write.* Switch the SYN proxy, live.
    SynProxy {
        /// `off`, `on` (SYNs above the total of handshakes) or `all` (above any budget of theirs).
        state: String,
    },
    /// Budgets of strangers, as they stand.
    Budgets {},
    /// *Write.* Set one of them; it holds from the next packet on, for good or for a while. For a while it only gets smaller, and one at
    /// a time; the guard gives it back, also if whoever asked has died. Asked again, it lasts longer.
    Budget {
        /// Its name, as [`Request::Budgets`] lists it.
        name: String,
        /// Packets a second, at most [`BUDGET_RATE_MAX`].
        rate: u32,
        /// Packets at once, at most [`BUDGET_BURST_MAX`]; 0 = no limit.
        burst: u32,
        /// For how long, ms: 1 to [`SQUEEZE_MS_MAX`], with at least [`SQUEEZE_RATE_MIN`] packets; null = for good.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        for_ms: Option<u64>,
    },
    /// *Write* (it takes a token of a budget and counts a ban's hit, as the packet would). The kernel's verdict on one packet.
    TestRun {
        /// The frame, in hexadecimal.
        packet: String,
    },
    /// *Write.* The node lives: known flows stay for another `--heartbeat-timeout`.
    Heartbeat {},
    /// Stream of events, one line each, until the client hangs up.
    Events {},
    /// *Write* (it hands out descriptors). Map descriptors as SCM_RIGHTS beside the answer.
    Maps {},
    /// *Write.* Read the configuration file again and take what changed, whole or not at all.
    Reload {},
    /// *Write.* Take the filter off, remove all pins, stop.
    Detach {},
    /// *Write.* Stop; the filter stays.
    Shutdown {},
}

/// What is left out of a request: an older guard knows no such field.
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Request {
    /// Whether it needs root or an allowed uid.
    pub const fn is_write(&self) -> bool {
        !matches!(
            self,
            Request::Status {}
                | Request::Stats { .. }
                | Request::Bans { .. }
                | Request::Lists {}
                | Request::Budgets {}
                | Request::Flows { .. }
                | Request::Events {}
        )
    }
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The line is no request.
    BadRequest,
    /// This uid may not.
    Forbidden,
    /// The prefix holds an address of the floor.
    Floor,
    /// The table is full: nothing was changed.
    Full,
    /// No such ban or flow.
    NotFound,
    /// A limit of the request itself: TTL, text, prefix too wide, addresses of a validator.
    Limit,
    /// The kernel refused.
    Kernel,
}

/// What the guard answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "response", rename_all = "snake_case")]
pub enum Response {
    /// Done.
    Done {},
    /// To `ban`: what is banned now (IPv6 hosts are widened to their /64).
    Banned {
        /// The prefix.
        address: Prefix,
        /// Until when, Unix ms.
        until_unix_ms: u64,
        /// Flows that the ban took away.
        flows_deleted: u32,
    },
    /// To `flow_add`: where it counts.
    Flow {
        /// Row, or null when all rows are taken (the flow works without counters of its own).
        row: Option<u32>,
        /// Generation of that row.
        generation: u32,
    },
    /// To `status` and `stats`.
    Stats(Box<Stats>),
    /// To `list_load`: the list as it is now in force.
    Listed {
        /// The list.
        list: ListInfo,
    },
    /// To `lists`.
    Lists {
        /// By slot.
        lists: Vec<ListInfo>,
    },
    /// To `bans`.
    Bans {
        /// A page of them.
        bans: Vec<BanInfo>,
        /// How many there are.
        #[serde(default)]
        total: u64,
    },
    /// To `budgets`.
    Budgets {
        /// All of them.
        budgets: Vec<BudgetInfo>,
    },
    /// To `flows`.
    Flows {
        /// A page of them.
        flows: Vec<FlowInfo>,
        /// How many there are.
        total: u64,
    },
    /// To `test_run`.
    Verdict {
        /// `pass` or `drop`, in the mode that the guard is in.
        action: String,
        /// The mode.
        mode: String,
        /// Why; what `enforce` does.
        reason: String,
        /// What it is counted as where it passes.
        class: String,
        /// 4 or 6; 0 if it is for no protected port.
        version: u8,
        /// IP protocol; 0 likewise.
        protocol: u8,
        /// The steps that it went through.
        steps: Vec<StepInfo>,
    },
    /// To `reload`.
    Reloaded {
        /// What changed, one `key = value` each.
        changes: Vec<String>,
    },
    /// To `maps`; the descriptors come with it.
    Maps {
        /// In the order of the descriptors.
        maps: Vec<MapInfo>,
        /// CPUs: arrays are indexed `row * cpus + cpu`.
        cpus: u32,
        /// Hash of the layouts: a reader that knows another one must not read.
        abi_hash: String,
    },
    /// One line of `events`.
    Event(EventInfo),
    /// Refused.
    Error {
        /// Stable code.
        code: ErrorCode,
        /// For people.
        message: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_read_as_documented() {
        let check = |line: &str, expect: Request| assert_eq!(serde_json::from_str::<Request>(line).unwrap(), expect);
        check(r#"{"request":"status"}"#, Request::Status {});
        check(
            r#"{"request":"ban","address":"10.0.0.7","ttl_ms":60000,"offence":"bad_signature"}"#,
            Request::Ban {
                address: "10.0.0.7/32".parse().unwrap(),
                ttl_ms: 60000,
                offence: Offence::BadSignature,
                note: String::new(),
                escalate: false,
            },
        );
        check(
            r#"{"request":"flow_add","protocol":"tcp","address":"10.0.0.7","port":9000,"class":"floor","label":"v1"}"#,
            Request::FlowAdd {
                protocol: Protocol::Tcp,
                address: "10.0.0.7".parse().unwrap(),
                port: 9000,
                class: FlowKind::Floor,
                label: "v1".into(),
                stake_ppm: None,
            },
        );
        check(r#"{"request":"flows"}"#, Request::Flows { skip: 0 });
        check(r#"{"request":"bans"}"#, Request::Bans { skip: 0 });
        check(r#"{"request":"bans","skip":512}"#, Request::Bans { skip: 512 });
        check(r#"{"request":"stats"}"#, Request::Stats { from: 0 });
        assert_eq!(serde_json::to_string(&Request::Bans { skip: 0 }).unwrap(), r#"{"request":"bans"}"#);
        for bad in [
            r#"{"request":"ban","address":"10.0.0.7","offence":"bad_signature"}"#,
            r#"{"request":"ban","address":"10.0.0.7","ttl_ms":1,"offence":"ugly"}"#,
            r#"{"request":"ban","address":"10.0.0.7","ttl_ms":1,"offence":"rate","forever":true}"#,
            r#"{"request":"sudo"}"#,
            "[]",
        ] {
            assert!(serde_json::from_str::<Request>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn reading_needs_no_right_and_changing_does() {
        assert!(!Request::Stats { from: 0 }.is_write());
        assert!(Request::Heartbeat {}.is_write());
        assert!(Request::Maps {}.is_write());
        assert!(Request::Detach {}.is_write());
    }

    /// The longest pages that there can be, with texts of nothing but what JSON writes in six bytes.
    #[test]
    fn pages_fit_into_a_line() {
        let check = |response: &Response| assert!(serde_json::to_vec(response).unwrap().len() < LINE_BYTES_MAX);
        let (text, address): (String, IpAddr) =
            ("\u{1}".repeat(TEXT_BYTES_MAX), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap());
        let (offence, hits, until) = (Offence::Equivocation, u64::MAX, u64::MAX);
        let ban = BanInfo {
            address: Prefix::host(address),
            offence,
            since_unix_ms: until,
            until_unix_ms: until,
            hits,
            note: text.clone(),
        };
        check(&Response::Bans { bans: vec![ban; BANS_PER_ANSWER], total: u64::MAX });
        let (protocol, port, class, most) = (Protocol::Udp, u16::MAX, FlowKind::Dialing, Some(u32::MAX));
        let (label, row, stake_ppm, share, rate, burst) = (text.clone(), most, most, most, most, most);
        let flow = FlowInfo { protocol, address, port, class, label, row, stake_ppm, share, rate, burst };
        check(&Response::Flows { flows: vec![flow; FLOWS_PER_ANSWER], total: u64::MAX });
        let (counts, ns) = (u64::MAX, Some(u64::MAX));
        let row = RowInfo {
            row: u32::MAX,
            generation: u32::MAX,
            label: text,
            flows: u32::MAX,
            packets: counts,
            bytes: counts,
            dropped: counts,
            would_drop: counts,
            latency: vec![counts; 31],
            latency_p50_ns: ns,
            latency_p99_ns: ns,
            endpoints: vec![Endpoint { protocol, address, port, class }; ENDPOINTS_PER_ROW],
            tcp: Some(crate::TcpTruth {
                srtt_us: ns,
                min_rtt_us: ns,
                rto_us: ns,
                retransmits: counts,
                state: crate::TcpState::SynReceived,
                bytes_acked: counts,
                bytes_received: counts,
                remote_port: port,
                local_port: port,
                updated_ns: counts,
            }),
        };
        // What is not rows has far less than a sixteenth of the line.
        assert!(serde_json::to_vec(&vec![row; ROWS_PER_ANSWER]).unwrap().len() < LINE_BYTES_MAX / 16 * 15);
    }
}
