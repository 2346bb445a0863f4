//! Lists, as requests see them. Reading and compiling happen before the guard is locked: only putting in force is done under its lock.

use super::{Guard, Refusal, refuse};
use crate::{
    Prefix,
    kernel::{
        clock::unix_ms,
        incoming::Text,
        lists::{self, Ready, compile},
        tables::TableError,
    },
    protocol::{BAN_TTL_MS_MAX, ErrorCode, Response},
};
use std::fs::File;

impl From<compile::ListError> for Refusal {
    fn from(error: compile::ListError) -> Refusal {
        let mut message = error.to_string();
        if let compile::ListError::Read(source) = &error {
            message = format!("{message}: {source}");
        }
        let code = match error {
            compile::ListError::Line { .. } | compile::ListError::Empty { .. } => ErrorCode::BadRequest,
            compile::ListError::Read(_) => ErrorCode::Kernel,
            compile::ListError::Prefixes | compile::ListError::Bytes => ErrorCode::Limit,
        };
        Refusal { code, message }
    }
}

/// A list that was read and lies in memory of its own, ready to be put in force.
pub struct Prepared {
    ready: Ready,
    name: String,
    ttl_ms: u64,
}

fn prepare(name: &str, ttl_ms: u64, skip_bad: bool, text: Option<Text<'_>>, floor: &[Prefix]) -> Result<Prepared, Refusal> {
    if !lists::is_name(name) {
        return refuse(ErrorCode::Limit, "a list's name has letters, digits, '-', '_', '.', at most 32");
    }
    if ttl_ms == 0 || ttl_ms > BAN_TTL_MS_MAX {
        return refuse(ErrorCode::Limit, format!("a list lasts 1 to {BAN_TTL_MS_MAX} ms"));
    }
    let Some(text) = text else {
        return refuse(ErrorCode::BadRequest, "the list's text comes as a descriptor beside the request");
    };
    if text.is_terminal() {
        return refuse(ErrorCode::BadRequest, "a list's text comes from a file or a pipe, not from a terminal or another device");
    }
    ready(name, ttl_ms, &compile::read(text, skip_bad, floor)?)
}

fn ready(name: &str, ttl_ms: u64, compiled: &compile::Compiled) -> Result<Prepared, Refusal> {
    let ready = Ready::new(compiled, name, unix_ms())?;
    Ok(Prepared { ready, name: name.to_string(), ttl_ms })
}

/// Reads a watched file as a list, lines that are no prefix left out; `None`: it names nothing, and not for mistakes. As [`read`], needs no
/// guard.
pub fn read_file(name: &str, ttl_ms: u64, text: File, floor: &[Prefix]) -> Result<Option<Prepared>, String> {
    let prepared = match compile::read(text, true, floor) {
        Ok(compiled) => ready(name, ttl_ms, &compiled),
        Err(compile::ListError::Empty { skipped: 0 }) => return Ok(None),
        Err(error) => Err(error.into()),
    };
    prepared.map(Some).map_err(|refusal| refusal.message)
}

/// Reads a list from a client's text. Needs no guard, only its floor ([`Guard::floor`]); ends with the text, or with its client.
pub fn read(name: &str, ttl_ms: u64, skip_bad: bool, text: Option<Text<'_>>, floor: &[Prefix]) -> Result<Prepared, Response> {
    prepare(name, ttl_ms, skip_bad, text, floor).map_err(|Refusal { code, message }| Response::Error { code, message })
}

impl Guard {
    /// The ranges that no ban and no list may touch.
    pub fn floor(&self) -> &[Prefix] {
        &self.options.floor
    }

    /// Puts a list in force.
    pub fn install(&mut self, prepared: Prepared) -> Response {
        match self.try_install(prepared) {
            Ok(response) => response,
            Err(Refusal { code, message }) => Response::Error { code, message },
        }
    }

    fn try_install(&mut self, prepared: Prepared) -> Result<Response, Refusal> {
        let Prepared { ready, name, ttl_ms } = prepared;
        let now = self.clock.now(&self.tables)?;
        let expiry = now.saturating_add(self.clock.ticks(ttl_ms));
        self.lists.install(&self.tables, &mut self.bans, &self.directory, ready, expiry)?;
        match self.lists.find(&name, &self.clock, now) {
            Some(list) => {
                let (prefixes, skipped, floor_cut) = (list.prefixes, list.skipped, list.floor_cut);
                self.changed.lists.insert(name.clone());
                tracing::info!(name, prefixes, skipped, floor_cut, ttl_ms, "list in force");
                Ok(Response::Listed { list })
            }
            None => refuse(ErrorCode::Kernel, "the list is not there"),
        }
    }

    /// Lets a list last so long from now on, in one store; false if there is none of this name.
    pub fn prolong_list(&mut self, name: &str, ttl_ms: u64) -> Result<bool, TableError> {
        let expiry = self.clock.now(&self.tables)?.saturating_add(self.clock.ticks(ttl_ms));
        let found = self.lists.prolong(name, expiry);
        if found {
            self.changed.lists.insert(name.to_string());
        }
        Ok(found)
    }

    pub(super) fn drop_list(&mut self, name: &str) -> Result<Response, Refusal> {
        match self.lists.remove(&self.tables, &mut self.bans, &self.directory, name)? {
            true => {
                self.changed.lists.insert(name.to_string());
                tracing::info!(name, "list dropped");
                Ok(Response::Done {})
            }
            false => refuse(ErrorCode::NotFound, format!("there is no list '{name}'")),
        }
    }

    pub(super) fn show_lists(&self) -> Result<Response, Refusal> {
        let now = self.clock.now(&self.tables)?;
        Ok(Response::Lists { lists: self.lists.list(&self.clock, now) })
    }
}
