//! Flows over the socket: announced with their class and stake, and listed with what each is allowed.

use super::{ErrorCode, Guard, Refusal, Response, TEXT_BYTES_MAX, refuse};
use crate::{
    kernel::flows::{Announcement, FlowKey, PARTS, Stake},
    protocol::{FLOWS_PER_ANSWER, FlowKind},
};

impl Guard {
    pub(super) fn flow_add(
        &mut self,
        key: FlowKey,
        class: FlowKind,
        label: &str,
        stake_ppm: Option<u32>,
    ) -> Result<Response, Refusal> {
        if label.len() > TEXT_BYTES_MAX {
            return refuse(ErrorCode::Limit, format!("a label has at most {TEXT_BYTES_MAX} bytes"));
        }
        if stake_ppm.is_some_and(|parts| !(1..=PARTS).contains(&parts)) {
            return refuse(ErrorCode::Limit, format!("a stake is 1 to {PARTS} millionths of all"));
        }
        let stake = match (class, stake_ppm) {
            (FlowKind::Floor, None) => Some(Stake::Unknown),
            (FlowKind::Floor | FlowKind::Dialed, parts) => parts.map(Stake::Parts),
            (_, None) => None,
            (_, Some(_)) => return refuse(ErrorCode::BadRequest, "only a validator's flow has a stake: floor, or dialed"),
        };
        let now = self.clock.now(&self.tables)?;
        let in_floor_range = self.options.floor.iter().any(|range| range.contains(key.address()));
        // An established flow of an operator's range is of the floor; one that is being dialed is not established yet.
        let class = if in_floor_range && class == FlowKind::Known { FlowKind::Floor } else { class };
        let announcement = Announcement { key, class, label, stake, now, in_floor_range };
        let (row, generation) = self.flows.add(&self.tables, &self.clock, &self.options.budgets, announcement)?;
        Ok(Response::Flow { row, generation })
    }

    pub(super) fn show_flows(&self, skip: u32) -> Response {
        let flows = self.flows.page(&self.clock, skip as usize, FLOWS_PER_ANSWER);
        Response::Flows { flows, total: self.flows.len() as u64 }
    }
}
