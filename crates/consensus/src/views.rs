//! All views from the final one on: certificates, and what follows from them about parents and gaps.

use std::collections::BTreeMap;

use types::{BlockHash, CERTIFICATES_MAX, Certificate, Kind, Tick, View};

use crate::slot::Slot;

/// Most bytes of certificates in one answer; leaves room in a message of the vote lane.
const ANSWER_BYTES_MAX: usize = types::VOTE_LANE_BYTES_MAX - 8 * 1024;

/// A block to build on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parent {
    pub(crate) view: View,
    pub(crate) digest: BlockHash,
    /// Its notarization in that view; none for the epoch's base.
    pub(crate) notarization: Option<Certificate>,
    /// When its proposal was seen.
    pub(crate) seen_at: Option<Tick>,
}

/// A certificate that is needed and not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) view: View,
    pub(crate) kind: Kind,
}

/// The final view and the open ones above it.
#[derive(Clone, Debug)]
pub(crate) struct Views {
    open: BTreeMap<View, Slot>,
    final_view: View,
    final_digest: BlockHash,
    finality: Option<Certificate>,
    /// Of the final view: the next block's body names it.
    final_notarization: Option<Certificate>,
    final_seen_at: Option<Tick>,
    /// Open views up to here were evicted from memory…
    evicted_to: View,
    /// …and those from here up to it were all nullified: the fact outlives the certificate's bytes.
    nullified_from: View,
    certificates_max: usize,
}

impl Views {
    /// Nothing but the epoch's base.
    pub(crate) fn new(base: BlockHash, certificates_max: usize) -> Views {
        Views {
            open: BTreeMap::new(),
            final_view: View(0),
            final_digest: base,
            finality: None,
            final_notarization: None,
            final_seen_at: None,
            evicted_to: View(0),
            nullified_from: View(1),
            certificates_max: certificates_max.max(1),
        }
    }

    pub(crate) fn final_view(&self) -> View {
        self.final_view
    }

    pub(crate) fn finality(&self) -> Option<&Certificate> {
        self.finality.as_ref()
    }

    pub(crate) fn get(&self, view: View) -> Option<&Slot> {
        self.open.get(&view)
    }

    /// The slot of an open view; the caller has checked that the view is worth one.
    pub(crate) fn slot(&mut self, view: View) -> &mut Slot {
        self.open.entry(view).or_default()
    }

    pub(crate) fn get_mut(&mut self, view: View) -> Option<&mut Slot> {
        self.open.get_mut(&view)
    }

    /// Open views, ascending.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (View, &Slot)> {
        self.open.iter().map(|(view, slot)| (*view, slot))
    }

    /// The highest view from `view` on that has a certificate, with it.
    pub(crate) fn highest_certified(&self, view: View) -> Option<(View, &Certificate)> {
        self.open.range(view..).rev().find_map(|(view, slot)| slot.admits().map(|certificate| (*view, certificate)))
    }

    /// Keeps a notarization or nullification; true if it is new.
    pub(crate) fn insert(&mut self, certificate: &Certificate, now: Tick) -> bool {
        let statement = &certificate.statement;
        let (view, kind) = (statement.view, statement.kind);
        if view == self.final_view && kind == Kind::Notarize && self.final_view > View(0) {
            let wanted = self.final_notarization.is_none() && statement.digest == self.final_digest;
            if wanted {
                self.final_notarization = Some(certificate.clone());
            }
            return wanted;
        }
        if view <= self.final_view {
            return false;
        }
        let slot = self.slot(view);
        let place = match kind {
            Kind::Notarize => &mut slot.notarization,
            Kind::Nullify => &mut slot.nullification,
            Kind::Propose | Kind::Finalize => return false,
        };
        if place.is_some() {
            return false;
        }
        *place = Some(certificate.clone());
        if kind == Kind::Notarize {
            slot.notarized_at = now;
        }
        true
    }

    /// Moves the final view up; gives the slot that became final, if there was one. None if it is not above.
    pub(crate) fn finalize(&mut self, certificate: &Certificate) -> Option<Slot> {
        let view = certificate.statement.view;
        if view <= self.final_view {
            return None;
        }
        let above = self.open.split_off(&view.next());
        let slot = self.open.remove(&view).unwrap_or_default();
        self.open = above;
        self.final_view = view;
        self.final_digest = certificate.statement.digest;
        self.finality = Some(certificate.clone());
        self.final_notarization = slot.notarization.clone().filter(|known| known.statement.digest == self.final_digest);
        self.final_seen_at = slot.proposal.map(|proposal| proposal.seen_at);
        self.evicted_to = self.evicted_to.max(view);
        self.nullified_from = self.nullified_from.max(view.next());
        Some(slot)
    }

    /// Forgets the lowest views below `view` while there are too many certificates. A nullification stays known as a fact, so
    /// a long run of nullified views costs no memory and stops nobody who went through it.
    pub(crate) fn evict(&mut self, view: View) {
        let mut certificates: usize = self.open.values().map(Slot::certificates).sum();
        while certificates > self.certificates_max
            && let Some(lowest) = self.open.first_entry()
            && *lowest.key() < view
        {
            let (lowest, slot) = lowest.remove_entry();
            certificates -= slot.certificates();
            if lowest <= self.evicted_to {
                // Evicted before and heard of again.
                continue;
            }
            let follows = self.evicted_to.next() == lowest;
            if slot.nullification.is_none() {
                self.nullified_from = lowest.next();
            } else if !follows {
                self.nullified_from = lowest;
            }
            self.evicted_to = lowest;
        }
    }

    pub(crate) fn is_nullified(&self, view: View) -> bool {
        let evicted = self.nullified_from <= view && view <= self.evicted_to;
        evicted || self.open.get(&view).is_some_and(|slot| slot.nullification.is_some())
    }

    /// The block that is notarized in a view (or final, or the base), if that is known.
    pub(crate) fn notarized(&self, view: View) -> Option<BlockHash> {
        if view == self.final_view {
            return Some(self.final_digest);
        }
        self.open.get(&view)?.notarization.as_ref().map(|certificate| certificate.statement.digest)
    }

    /// The highest view between two (both excluded) whose nullification is missing: the gap check.
    pub(crate) fn gap(&self, parent: View, view: View) -> Option<View> {
        let mut between = view.prev();
        while between > parent {
            if !self.is_nullified(between) {
                return Some(between);
            }
            between = between.prev();
        }
        None
    }

    /// The highest notarized block that a leader of `view` may build on, or the certificate that it must ask for. Either kind
    /// will do, from the view before down.
    pub(crate) fn parent(&self, view: View, check_gaps: bool) -> Result<Parent, Missing> {
        let mut below = view.prev();
        loop {
            if below <= self.final_view {
                return self.final_parent();
            }
            if let Some(slot) = self.open.get(&below)
                && let Some(notarization) = &slot.notarization
            {
                return Ok(Parent {
                    view: below,
                    digest: notarization.statement.digest,
                    notarization: Some(notarization.clone()),
                    seen_at: slot.proposal.map(|proposal| proposal.seen_at),
                });
            }
            if check_gaps && !self.is_nullified(below) {
                return Err(Missing { view: below, kind: Kind::Nullify });
            }
            below = below.prev();
        }
    }

    fn final_parent(&self) -> Result<Parent, Missing> {
        let view = self.final_view;
        if view > View(0) && self.final_notarization.is_none() {
            // The next block's body names it. Who learnt finality from a certificate alone has to ask for it.
            return Err(Missing { view, kind: Kind::Notarize });
        }
        let (digest, notarization) = (self.final_digest, self.final_notarization.clone());
        Ok(Parent { view, digest, notarization, seen_at: self.final_seen_at })
    }

    /// Certificates from a view on, for one answer. With too many for one, the highest come first if `highest_first`: they
    /// lift a laggard at once; else the lowest: they are what was asked for.
    pub(crate) fn ladder(&self, from: View, highest_first: bool) -> Vec<Certificate> {
        let finality = self.finality.as_ref().filter(|_| from <= self.final_view);
        let notarization = self.final_notarization.as_ref().filter(|_| from <= self.final_view);
        let slots = self.open.range(from..).map(|(_, slot)| slot);
        let mut bytes = 0;
        let mut fits = |certificate: &&Certificate| {
            bytes += certificate_bytes(certificate);
            bytes <= ANSWER_BYTES_MAX
        };
        let top: Vec<&Certificate> = finality.into_iter().chain(notarization).collect();
        let rest: Vec<&Certificate> = if highest_first {
            slots.rev().flat_map(|slot| slot.nullification.iter().chain(&slot.notarization)).collect()
        } else {
            slots.flat_map(|slot| slot.notarization.iter().chain(&slot.nullification)).collect()
        };
        top.into_iter().chain(rest).take(CERTIFICATES_MAX).take_while(|certificate| fits(certificate)).cloned().collect()
    }
}

/// An upper bound of a certificate's canonical bytes.
fn certificate_bytes(certificate: &Certificate) -> usize {
    128 + certificate.bitmap.len() + 64 * certificate.signatures.len()
}
