//! Reading the configuration again while the guard runs.

use super::{config::Settings, run::Run};
use guard::{
    ErrorCode, Prefix, Request, Response,
    kernel::{
        Guard,
        guard::ReloadError,
        server::{Reload, Shared},
        watch::{Sink, Watcher},
    },
};
use std::sync::{Arc, Mutex, PoisonError};
use types::Offence;

/// What ban files do to the guard: one lock a ban, so that a long file doesn't hold up the socket.
pub struct Lists<'a>(pub &'a Mutex<Guard>);

impl Lists<'_> {
    fn ask(&mut self, request: &Request) -> Result<(), (ErrorCode, String)> {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).answer(request).0 {
            Response::Error { code, message } => Err((code, message)),
            _ => Ok(()),
        }
    }
}

impl Sink for Lists<'_> {
    fn ban(&mut self, address: Prefix, ttl_ms: u64, offence: Offence, note: &str) -> Result<(), String> {
        self.ask(&Request::Ban { address, ttl_ms, offence, note: note.to_string(), escalate: false })
            .map_err(|(_, message)| message)
    }

    fn lift(&mut self, address: Prefix) -> Result<(), String> {
        match self.ask(&Request::Unban { address }) {
            Err((ErrorCode::NotFound, _)) | Ok(()) => Ok(()), // it has expired
            Err((_, message)) => Err(message),
        }
    }
}

/// What `reload` and SIGHUP do: flags stay, the file is read again, and what differs from `settings` is applied.
pub fn reloader(run: Run, settings: Settings, watcher: Arc<Mutex<Watcher>>) -> Box<Reload> {
    let current = Mutex::new(settings);
    Box::new(move |shared| {
        // Held throughout: one reload at a time.
        let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
        match reload(&run, &mut current, shared, &watcher) {
            Ok(changes) => {
                tracing::info!(changes = changes.join("; "), "configuration read again");
                Response::Reloaded { changes }
            }
            Err((code, message)) => {
                tracing::error!(message, "configuration not taken: everything stays as it was");
                Response::Error { code, message }
            }
        }
    })
}

fn reload(
    run: &Run,
    current: &mut Settings,
    shared: &Shared,
    watcher: &Mutex<Watcher>,
) -> Result<Vec<String>, (ErrorCode, String)> {
    if run.config.is_none() {
        return Err((ErrorCode::BadRequest, "this guard was started without --config: there is nothing to read again".into()));
    }
    let new = Settings::read(run).map_err(|error| (ErrorCode::BadRequest, super::chain(&error)))?;
    let fixed = current.fixed(&new);
    if !fixed.is_empty() {
        return Err((ErrorCode::BadRequest, ReloadError::Fixed(fixed).to_string()));
    }
    // Everything behind this line can't be refused.
    let taken = shared.guard.lock().unwrap_or_else(PoisonError::into_inner).reload(new.options.clone());
    let mut changes = taken.map_err(|error| match error {
        ReloadError::Fixed(_) => (ErrorCode::BadRequest, error.to_string()),
        ReloadError::SynProxy(_) | ReloadError::Table(_) => (ErrorCode::Kernel, error.to_string()),
    })?;
    if current.access != new.access {
        *shared.access.write().unwrap_or_else(PoisonError::into_inner) = new.access.clone();
        changes.push(format!("allow_uid = {:?}, allow_group = {:?}", new.access.uids, new.access.gids));
    }
    if current.ban_files != new.ban_files {
        watcher.lock().unwrap_or_else(PoisonError::into_inner).replace(&new.ban_files, &mut Lists(&shared.guard));
        changes.push(format!("{} ban files", new.ban_files.len()));
    }
    *current = new;
    Ok(changes)
}
