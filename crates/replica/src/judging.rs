//! Proposals that the engine wants judged: at once, or when what they wait for has come.

use std::sync::Arc;

use consensus::BlockMeta;
use mempool::{BuildContext, BuildError, JudgeContext, Verdict};
use types::{BatchId, Block, BlockHash, Certificate, Offence, PublicKey, Tick, UnixMs, View};

use crate::effect::Event;
use crate::replica::Replica;

/// A proposal under judgement.
#[derive(Clone, Debug)]
pub(crate) struct Judging {
    pub(crate) block: BlockHash,
    pub(crate) parent_view: View,
    pub(crate) leader: PublicKey,
    pub(crate) reproposal: bool,
    /// Batches that it waits for.
    pub(crate) batches: Vec<BatchId>,
    /// A block that it waits for: itself or an ancestor.
    pub(crate) missing: Option<BlockHash>,
    /// The own clock's time at which its own is not ahead any more.
    pub(crate) until: Option<UnixMs>,
}

/// What the engine knows of a block.
pub(crate) fn meta(block: &Block) -> BlockMeta {
    BlockMeta { digest: block.hash(), parent: block.header.parent, height: block.header.height }
}

impl<D: signer::Disk> Replica<D> {
    /// Builds a block for a view that this node leads; the epoch's last block is proposed again.
    pub(crate) fn build(
        &mut self,
        view: View,
        parent_view: View,
        parent: BlockHash,
        notarization: Option<Certificate>,
        now: Tick,
        unix: UnixMs,
    ) {
        self.building = None;
        let block = self.built(parent_view, parent, notarization, unix);
        if let Some(block) = &block {
            self.mempool.add_block(Arc::clone(block));
            let (epoch, height, hash) = (self.epoch.record.epoch, block.header.height, block.hash());
            self.event(Event::Proposed { epoch, view, height, hash });
        }
        self.tell(consensus::Input::Built { view, block: block.as_deref().map(meta) }, now);
    }

    fn built(
        &mut self,
        parent_view: View,
        parent: BlockHash,
        notarization: Option<Certificate>,
        unix: UnixMs,
    ) -> Option<Arc<Block>> {
        let proposer = self.me?;
        match self.mempool.build(&BuildContext { parent, parent_view, notarization, proposer, unix }) {
            Ok(block) => Some(Arc::new(block)),
            Err(BuildError::EpochEnd) => self.mempool.block(&parent).or_else(|| self.recent.get(&parent)).map(Arc::clone),
            Err(BuildError::Missing(hash)) => {
                self.building = Some(hash);
                self.fetch_again();
                None
            }
            Err(BuildError::Stale | BuildError::Notarization) => None,
        }
    }

    /// Judges what is to be judged, if something changed or a clock's time has come.
    pub(crate) fn judge_step(&mut self, now: Tick, unix: UnixMs) {
        let in_time = |judging: &Judging| judging.until.is_some_and(|until| until <= unix);
        if !self.judge_due && !self.judging.values().any(in_time) {
            return;
        }
        self.judge_due = false;
        let views: Vec<View> = self.judging.keys().copied().collect();
        for view in views {
            self.judge(view, now, unix);
        }
    }

    fn judge(&mut self, view: View, now: Tick, unix: UnixMs) {
        let Some(judging) = self.judging.get(&view) else { return };
        let (digest, leader) = (judging.block, judging.leader);
        let context = JudgeContext { leader, parent_view: judging.parent_view, reproposal: judging.reproposal, unix };
        let Some(block) = self.mempool.block(&digest).map(Arc::clone) else {
            return self.judge_waits(view, Vec::new(), Some(digest), None);
        };
        let verdict = match &block.body.parent_notarization {
            // Its shape and subject are judged with the rest; here its signatures, whose verdict nothing can change.
            Some(certificate) if self.verifier.certificate(certificate, &self.epoch.set).is_err() => None,
            _ => Some(self.mempool.judge(&block, &context)),
        };
        let epoch = self.epoch.record.epoch;
        match verdict {
            Some(Verdict::Valid) => {
                self.judging.remove(&view);
                if Some(leader) != self.me {
                    self.event(Event::Validated { epoch, view, height: block.header.height });
                }
                self.tell(consensus::Input::Judged { view, digest, verdict: consensus::Verdict::Valid }, now);
            }
            Some(Verdict::Wait(wait)) => self.judge_waits(view, wait.batches, wait.parent, wait.until),
            Some(Verdict::Stale) => {
                self.judging.remove(&view);
            }
            Some(Verdict::Invalid(_)) | None => {
                self.judging.remove(&view);
                let guilty: Vec<_> = self.peers.of_validator(&leader).collect();
                for peer in guilty {
                    self.offence(peer, Offence::InvalidBlock, "proposed a block that breaks a rule");
                }
                self.tell(consensus::Input::Judged { view, digest, verdict: consensus::Verdict::Invalid }, now);
            }
        }
    }

    fn judge_waits(&mut self, view: View, batches: Vec<BatchId>, missing: Option<BlockHash>, until: Option<UnixMs>) {
        if let Some(judging) = self.judging.get_mut(&view) {
            let news = judging.batches != batches || judging.missing != missing;
            (judging.batches, judging.missing, judging.until) = (batches, missing, until);
            self.fetch_due |= news;
        }
    }
}
