//! How a ledger begins: from the genesis record, or from what storage holds.

use types::{Account, GenesisError, GenesisRecord, Height, StateKey, StateValue, Supply, ValidatorState};

use crate::error::{LedgerError, RestoreError};
use crate::ledger::Ledger;
use crate::state::{Change, State};

/// A leaf as a store gives it back. The next key is not needed: it follows from all keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredLeaf {
    /// Its place, from 0.
    pub index: u64,
    /// What it is about.
    pub key: StateKey,
    /// [`StateValue::to_bytes`].
    pub value: Vec<u8>,
}

/// Port: where a state is read back from. Storage implements it.
pub trait StateStore {
    /// What can go wrong there.
    type Error: std::error::Error + 'static;

    /// The height after which the stored state stands.
    ///
    /// # Errors
    /// The store's.
    fn state_height(&self) -> Result<Height, Self::Error>;

    /// Gives every leaf to `visit`, ascending by index, each once.
    ///
    /// # Errors
    /// The store's.
    fn visit_state(&self, visit: &mut dyn FnMut(StoredLeaf)) -> Result<(), Self::Error>;
}

impl Ledger {
    /// The state at height 0, and all its leaves for storage. Leaves in this order: supply, validators of epoch 0 (stake =
    /// weight), hashes of epoch records 0 and 1, accounts in the record's order.
    ///
    /// # Errors
    /// [`RestoreError::Genesis`] if the record breaks its rules.
    pub fn genesis(record: &GenesisRecord) -> Result<(Ledger, Vec<Change>), RestoreError<GenesisError>> {
        record.check().map_err(RestoreError::Genesis)?;
        let genesis = record.supply().map_err(RestoreError::Genesis)?;
        let supply = (StateKey::supply(), StateValue::Supply(Supply { genesis, ..Supply::default() }));
        let validators = record.epochs[0].validators.iter().map(|validator| {
            let value = StateValue::Validator(ValidatorState { stake: validator.weight });
            (StateKey::validator(validator.key), value)
        });
        let epochs = record.epochs.iter().map(|epoch| (StateKey::epoch(epoch.epoch.0), StateValue::Epoch(epoch.hash())));
        let accounts = record.accounts.iter().map(|(address, balance)| {
            let account = Account { balance: *balance, ..Account::default() };
            (StateKey::account(*address), StateValue::Account(account))
        });
        let mut state = State::default();
        for (key, value) in std::iter::once(supply).chain(validators).chain(epochs).chain(accounts) {
            state.append(key, value).ok_or(RestoreError::Ledger(LedgerError::Full))?;
        }
        let changes = (0..state.count()).map(|index| state.change(index)).collect();
        let ledger = Ledger::assemble(Height(0), state).map_err(RestoreError::Ledger)?;
        Ok((ledger, changes))
    }

    /// The ledger that a store holds. Compare [`Ledger::root`] with a final header that names [`Ledger::height`] as executed.
    ///
    /// Cost: about 1.5 µs a leaf.
    ///
    /// # Errors
    /// [`RestoreError`]: the store's own, or a state that no ledger wrote.
    pub fn restore<S: StateStore>(store: &S) -> Result<Ledger, RestoreError<S::Error>> {
        let height = store.state_height().map_err(RestoreError::Store)?;
        let mut leaves: Vec<(StateKey, StateValue)> = Vec::new();
        let mut broken = None;
        let mut visit = |leaf: StoredLeaf| {
            let expected = leaves.len() as u64;
            match StateValue::from_bytes(leaf.key.kind, &leaf.value) {
                _ if broken.is_some() => {}
                _ if leaf.index != expected => broken = Some(RestoreError::Gap { expected }),
                None => broken = Some(RestoreError::Value(leaf.key)),
                Some(value) => leaves.push((leaf.key, value)),
            }
        };
        store.visit_state(&mut visit).map_err(RestoreError::Store)?;
        if let Some(error) = broken {
            return Err(error);
        }
        let state = State::from_leaves(leaves)?;
        if state.supply().is_none() {
            return Err(RestoreError::NoSupply);
        }
        Ledger::assemble(height, state).map_err(RestoreError::Ledger)
    }
}
