//! The rules of execution of one transaction.
//!
//! In this order; the first three skip without receipt, the rest ends with one:
//! 1. `height ≤ expiry ≤ height + transaction_life_max`;
//! 2. the sender's account exists and the nonce fits its window;
//! 3. the balance covers the fee;
//! 4. nonce and fee are consumed, the fee is burned;
//! 5. the transfer, with the charge for a new account, happens whole or not at all.

use types::{Account, Action, Amount, Height, Params, Receipt, SignedTransaction, StateKey, StateValue, TxId, TxResult};

use crate::state::State;

/// Why a transaction in a final block has no receipt and consumed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SkipReason {
    /// The block's height is above its expiry.
    Expired,
    /// Its expiry is too far above the block's height.
    ExpiryTooFar,
    /// The sender has no account.
    NoAccount,
    /// The nonce was used, maybe by this very transaction, or is older than the window.
    NonceUsed,
    /// The balance does not cover the fee.
    FeeNotPayable,
}

impl SkipReason {
    /// All reasons.
    pub const ALL: [SkipReason; 5] =
        [SkipReason::Expired, SkipReason::ExpiryTooFar, SkipReason::NoAccount, SkipReason::NonceUsed, SkipReason::FeeNotPayable];

    /// The label.
    pub const fn as_str(self) -> &'static str {
        match self {
            SkipReason::Expired => "expired",
            SkipReason::ExpiryTooFar => "expiry_too_far",
            SkipReason::NoAccount => "no_account",
            SkipReason::NonceUsed => "nonce_used",
            SkipReason::FeeNotPayable => "fee_not_payable",
        }
    }
}

/// A transaction of a final block that was skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Which.
    pub id: TxId,
    /// Why.
    pub reason: SkipReason,
}

/// How one transaction ended: what was charged and burned, or why it was skipped.
pub(crate) enum Ended {
    Receipt(TxResult, Amount),
    Skip(SkipReason),
    /// A new account found no free leaf index.
    Full,
}

/// The checks that decide between receipt and skip: what pools ask, too, before they take a transaction.
///
/// # Errors
/// The reason to skip it in a block of this height on top of this account.
pub(crate) fn admit(tx: &SignedTransaction, account: Option<&Account>, height: Height, params: &Params) -> Result<(), SkipReason> {
    let body = &tx.transaction;
    if height > body.expiry {
        return Err(SkipReason::Expired);
    }
    if body.expiry > height.plus(params.transaction_life_max) {
        return Err(SkipReason::ExpiryTooFar);
    }
    let account = account.ok_or(SkipReason::NoAccount)?;
    if !account.nonce_fits(body.nonce) {
        return Err(SkipReason::NonceUsed);
    }
    if account.balance < tx.fee(params) {
        return Err(SkipReason::FeeNotPayable);
    }
    Ok(())
}

/// Runs one transaction against the state.
pub(crate) fn execute(state: &mut State, tx: &SignedTransaction, height: Height, params: &Params) -> Ended {
    let sender = tx.transaction.sender.address();
    let from = state.find(&StateKey::account(sender));
    let account = from.and_then(|index| state.account(index));
    if let Err(reason) = admit(tx, account.as_ref(), height, params) {
        return Ended::Skip(reason);
    }
    let (Some(from), Some(mut account)) = (from, account) else {
        return Ended::Skip(SkipReason::NoAccount);
    };
    let mut charged = tx.fee(params);
    account.use_nonce(tx.transaction.nonce);
    account.balance = Amount(account.balance.0 - charged.0);

    let Action::Transfer { to, amount, .. } = &tx.transaction.action;
    let result = if *to == sender {
        if account.balance < *amount { TxResult::InsufficientBalance } else { TxResult::Success }
    } else {
        match transfer(state, &mut account, StateKey::account(*to), *amount, params) {
            Ok((result, creation)) => {
                charged = Amount(charged.0 + creation.0);
                result
            }
            Err(Full) => return Ended::Full,
        }
    };
    state.set(from, StateValue::Account(account));
    Ended::Receipt(result, charged)
}

struct Full;

/// Moves money from an account in hand to another one, made if absent; gives the charge for making it.
fn transfer(
    state: &mut State,
    from: &mut Account,
    to: StateKey,
    amount: Amount,
    params: &Params,
) -> Result<(TxResult, Amount), Full> {
    let none = Amount(0);
    let Some(index) = state.find(&to) else {
        let rest = from.balance.checked_sub(amount).and_then(|rest| rest.checked_sub(params.account_creation_fee));
        let Some(rest) = rest else {
            return Ok((TxResult::InsufficientBalance, none));
        };
        let new = Account { balance: amount, ..Account::default() };
        state.append(to, StateValue::Account(new)).ok_or(Full)?;
        from.balance = rest;
        return Ok((TxResult::Success, params.account_creation_fee));
    };
    let Some(rest) = from.balance.checked_sub(amount) else {
        return Ok((TxResult::InsufficientBalance, none));
    };
    let recipient = state.account(index).unwrap_or_default();
    let Some(sum) = recipient.balance.checked_add(amount) else {
        return Ok((TxResult::BalanceOverflow, none));
    };
    state.set(index, StateValue::Account(Account { balance: sum, ..recipient }));
    from.balance = rest;
    Ok((TxResult::Success, none))
}

/// A receipt from what [`execute`] gave.
pub(crate) fn receipt(height: Height, index: usize, id: TxId, result: TxResult, fee: Amount) -> Receipt {
    Receipt { height, index: index as u32, id, result, fee }
}
