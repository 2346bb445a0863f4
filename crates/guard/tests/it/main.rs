//! The guard against the kernel: network namespaces and veth pairs of the tests' own, the real binary, the real maps.
#![allow(clippy::unwrap_used)]

mod alone;
mod bans;
mod differential;
mod egress;
mod golden;
mod life;
mod list_files;
mod lists;
mod modes;
mod peers;
mod probes;
mod readers;
mod reading;
mod refused;
mod saving;
mod scrape;
mod service;
mod socket;
mod stakes;
mod states;
mod strangers;
mod support;
mod swap;
mod syn_proxy;
mod syncookies;
mod tap;
mod tcx;
mod terminal;
mod upgrade;
mod verifier;
