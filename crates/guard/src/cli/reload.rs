//! Reading the configuration again while the guard runs.

use super::{config::Settings, run::Run};
use guard::{
    ErrorCode, Prefix, Request, Response,
    kernel::{
        Guard,
        guard::{ReloadError, listing},
        server::{Reload, Shared},
        watch::{Loaded, NotLoaded, Sink, Watcher},
    },
};
use std::{
    fs::File,
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError},
};

/// What ban files do to the guard: one lock a ban, so that a long file doesn't hold up the socket. A list is read without it.
pub struct Lists<'a> {
    guard: &'a Mutex<Guard>,
    /// As in [`Shared`].
    loading: &'a Mutex<()>,
}

impl Lists<'_> {
    /// Before there are connections to share anything with.
    pub fn new<'a>(guard: &'a Mutex<Guard>, loading: &'a Mutex<()>) -> Lists<'a> {
        Lists { guard, loading }
    }

    /// Of a guard that serves.
    pub fn of(shared: &Shared) -> Lists<'_> {
        Lists { guard: &shared.guard, loading: &shared.loading }
    }

    fn guard(&self) -> MutexGuard<'_, Guard> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&mut self, request: &Request) -> Result<(), (ErrorCode, String)> {
        match self.guard().answer(request).0 {
            Response::Error { code, message } => Err((code, message)),
            _ => Ok(()),
        }
    }
}

impl Sink for Lists<'_> {
    fn ban(&mut self, address: Prefix, ttl_ms: u64, note: &str) -> Result<(), String> {
        self.guard().ban_line(address, ttl_ms, note)
    }

    fn lift(&mut self, address: Prefix) -> Result<(), String> {
        match self.ask(&Request::Unban { address }) {
            Err((ErrorCode::NotFound, _)) | Ok(()) => Ok(()), // it has expired
            Err((_, message)) => Err(message),
        }
    }

    fn load(&mut self, list: &str, ttl_ms: u64, text: File) -> Result<Loaded, NotLoaded> {
        // A client may be slow with the text of his: nobody waits for him.
        let _only = match self.loading.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(NotLoaded::Busy),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Ok(only) => only,
        };
        let floor = self.guard().floor().to_vec();
        let Some(prepared) = listing::read_file(list, ttl_ms, text, &floor).map_err(NotLoaded::Refused)? else {
            return self.unload(list).map(|()| Loaded::Nothing).map_err(NotLoaded::Refused);
        };
        match self.guard().install(prepared) {
            Response::Listed { list } => Ok(Loaded::List(list)),
            Response::Error { message, .. } => Err(NotLoaded::Refused(message)),
            _ => Err(NotLoaded::Refused("the guard did not say what came of it".to_string())),
        }
    }

    fn prolong(&mut self, list: &str, ttl_ms: u64) -> Result<bool, String> {
        self.guard().prolong_list(list, ttl_ms).map_err(|error| error.to_string())
    }

    fn unload(&mut self, list: &str) -> Result<(), String> {
        match self.ask(&Request::ListDrop { name: list.to_string() }) {
            Err((ErrorCode::NotFound, _)) | Ok(()) => Ok(()), // it has expired, or was dropped
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
    let new = Settings::read(run).map_err(|error| (ErrorCode::BadRequest, crate::kernel::chain(&error)))?;
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
        watcher.lock().unwrap_or_else(PoisonError::into_inner).replace(&new.ban_files, &mut Lists::of(shared));
        changes.push(format!("{} ban files", new.ban_files.len()));
    }
    if current.options.floor != new.options.floor {
        // What a smaller floor no longer cuts out of files, they ban now.
        watcher.lock().unwrap_or_else(PoisonError::into_inner).repeat(&mut Lists::of(shared));
    }
    *current = new;
    Ok(changes)
}
