//! What the privileged process does: load, attach, pin, adopt, keep the tables, serve the socket.

pub mod access;
pub mod attach;
pub mod ban_file;
pub mod bans;
pub mod bpffs;
pub mod btf;
pub mod budgets;
pub mod caps;
pub mod clock;
pub mod drop_ports;
pub mod duration;
pub mod egress;
pub mod events;
pub mod flows;
pub mod group;
pub mod guard;
pub mod hosts;
pub mod incoming;
pub mod lists;
pub mod load;
pub mod metrics;
pub mod netlink;
pub mod ports;
pub mod probes;
pub mod scrape;
pub mod seats;
pub mod server;
pub mod squeeze;
pub mod state;
pub mod strikes;
pub mod syn_proxy;
pub mod sys;
pub mod tables;
pub mod upgrade;
pub mod watch;

pub use self::guard::{Guard, Options};

/// An error and what caused it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
