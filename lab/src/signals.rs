//! Ctrl-C and SIGTERM as a flag that loops look at: cleaning up is the loops' own work.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

static ASKED: AtomicBool = AtomicBool::new(false);

extern "C" fn note(_: i32) {
    ASKED.store(true, Ordering::SeqCst);
}

/// From now on SIGINT, SIGTERM and SIGHUP only raise the flag.
///
/// # Errors
/// If the kernel refuses.
pub fn install() -> Result<()> {
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler stores to an atomic and does nothing else, which is async-signal-safe.
        unsafe { sigaction(signal, &action) }.context("install a signal handler")?;
    }
    Ok(())
}

/// Whether somebody asked this process to stop.
pub fn asked_to_stop() -> bool {
    ASKED.load(Ordering::SeqCst)
}
