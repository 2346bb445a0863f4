//! The devnet's chain: development accounts with money, one equal validator a node.

use anyhow::{Context, Result};
use types::{AccountKey, Address, Amount, Epoch, EpochRecord, GenesisRecord, Height, Params, PublicKey, Stake, UnixMs, Validator};

/// Opening balance of each development account.
pub const OPENING_BALANCE: Amount = Amount(1_000_000_000_000);
/// Stake of each validator.
const STAKE: Stake = Stake(1_000_000);
/// Development accounts 0 to 9 are for the person at the keyboard: the load never touches them, so nothing that is done with
/// them disturbs its books.
pub const ACCOUNTS_RESERVED: u32 = 10;
/// Heights in an epoch: short enough that a minute under load sees one end.
const EPOCH_LENGTH: u64 = 1_000;

/// The address of development account `index`.
pub fn account_address(index: u32) -> Address {
    AccountKey::development(index).public().address()
}

/// The genesis of a devnet whose development accounts 0..`accounts` hold money.
///
/// # Errors
/// If there are no validators, or the same one twice.
pub fn genesis(validators: &[PublicKey], accounts: u32, time: UnixMs) -> Result<GenesisRecord> {
    let mut validators: Vec<Validator> = validators.iter().map(|key| Validator { key: *key, weight: STAKE }).collect();
    validators.sort_by_key(|validator| validator.key);
    let mut funded: Vec<(Address, Amount)> = (0..accounts).map(|index| (account_address(index), OPENING_BALANCE)).collect();
    funded.sort();
    let epoch = |number: u64| EpochRecord {
        epoch: Epoch(number),
        first_height: Height(1 + number * EPOCH_LENGTH),
        length: EPOCH_LENGTH,
        version: 1,
        params: Params::default(),
        validators: validators.clone(),
    };
    let record = GenesisRecord { time, accounts: funded, epochs: [epoch(0), epoch(1)] };
    record.check().context("genesis of the devnet")?;
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn genesis_is_valid_and_needs_distinct_validators() {
        let keys: Vec<PublicKey> = (0..4).map(|i| AccountKey::development(100 + i).public()).collect();
        let record = genesis(&keys, 16, UnixMs(1)).unwrap();
        assert_eq!(record.accounts.len(), 16);
        assert!(genesis(&[], 16, UnixMs(1)).is_err());
        assert!(genesis(&[keys[0], keys[0]], 16, UnixMs(1)).is_err());
    }
}
