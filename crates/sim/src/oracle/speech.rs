//! Everything that keys were ever heard to sign: no honest key contradicts itself, and whoever forks is convicted by it.

use std::collections::{BTreeMap, BTreeSet};

use types::{Epoch, Kind, PublicKey, SignedStatement, Statement, View};

/// What one key said about one view.
#[derive(Clone, Debug, Default)]
struct Said {
    proposals: BTreeSet<Statement>,
    notarize: BTreeSet<Statement>,
    finalize: BTreeSet<Statement>,
    nullify: BTreeSet<Statement>,
}

impl Said {
    /// The list of evidence, restated.
    fn guilt(&self) -> Option<&'static str> {
        if self.proposals.len() > 1 {
            return Some("two proposals");
        }
        if self.notarize.len() > 1 {
            return Some("two notarize votes");
        }
        if self.finalize.len() > 1 {
            return Some("two finalize votes");
        }
        if !self.finalize.is_empty() && !self.nullify.is_empty() {
            return Some("nullify and finalize");
        }
        None
    }
}

/// All statements heard, by key and view.
#[derive(Clone, Debug, Default)]
pub struct Speech {
    said: BTreeMap<(PublicKey, Epoch, View), Said>,
}

impl Speech {
    /// Notes a verified statement; gives the guilt that it completes.
    pub fn hear(&mut self, signed: &SignedStatement) -> Option<&'static str> {
        let statement = signed.statement;
        let said = self.said.entry((signed.key, statement.epoch, statement.view)).or_default();
        let new = match statement.kind {
            Kind::Propose => said.proposals.insert(statement),
            Kind::Notarize => said.notarize.insert(statement),
            Kind::Nullify => said.nullify.insert(statement),
            Kind::Finalize => said.finalize.insert(statement),
        };
        if new { said.guilt() } else { None }
    }

    /// All keys that the list of evidence convicts.
    pub fn guilty(&self) -> BTreeSet<PublicKey> {
        self.said.iter().filter(|(_, said)| said.guilt().is_some()).map(|((key, _, _), _)| *key).collect()
    }
}
