//! The hooks on the node's control group: they go where it goes.

use super::Guard;
use crate::kernel::{
    group::{Group, Seen},
    tables::TableError,
};
use kernel_shared::control::{Config, WORD_CONFIG};
use std::{collections::BTreeMap, fs::File};

impl Guard {
    /// Puts the hooks on the control group if another one is at its path than the last time, and says in the log what of them is
    /// missing. What the kernel refuses is tried again the next time.
    pub(super) fn follow_group(&mut self) -> Result<(), TableError> {
        match self.group.as_ref().map(Group::look) {
            None | Some(Ok(Seen::Same)) => Ok(()),
            Some(Ok(Seen::Gone)) => self.hook(None),
            Some(Ok(Seen::Other(directory, id))) => self.hook(Some((&directory, id))),
            Some(Err(error)) => {
                tracing::debug!(%error, "the control group can't be looked at");
                Ok(())
            }
        }
    }

    fn hook(&mut self, there: Option<(&File, u64)>) -> Result<(), TableError> {
        let missing = self.degraded();
        let group = there.map(|(group, _)| group);
        let by_flow = self.object.name_senders(group);
        let guarded = self.egress.as_mut().is_none_or(|egress| egress.hook(group, &self.directory, &[]).is_ok());
        let heard = self.probes.hook(group, &self.directory, &[]);
        if let Some(followed) = &mut self.group {
            followed.set_hooked(there.map(|(_, id)| if guarded && heard { id } else { 0 }));
        }
        let config = Config::from_word(self.tables.control(WORD_CONFIG)?).with_udp_by_flow(by_flow);
        self.tables.set_control(WORD_CONFIG, config.word())?;
        self.degraded().iter().filter(|line| !missing.contains(line)).for_each(|line| tracing::warn!("{line}"));
        if there.is_some() && guarded && heard {
            tracing::info!("another control group: its hooks are on");
        }
        Ok(())
    }

    /// How each probe, and the egress guard if there is one, is attached, or what is missing.
    pub(super) fn attachments(&self) -> BTreeMap<String, String> {
        let egress = self.egress.iter().map(|egress| ("egress".to_string(), egress.line().to_string()));
        self.probes.lines().into_iter().chain(egress).collect()
    }
}
