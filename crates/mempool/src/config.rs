//! This node's own limits. What decides validity is not here but in [`types::Params`].

/// Every bound of the mempool, checked by [`Config::check`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Most transactions in the pool, waiting and packed. Raise it to absorb longer bursts; costs about 500 bytes each.
    pub transactions_max: usize,
    /// Most bytes of transactions in the pool.
    pub bytes_max: usize,
    /// Most transactions in the pool that one peer forwarded.
    pub forwarder_transactions_max: usize,
    /// Most transactions in the pool of one sender; above the nonce window more would only be skipped.
    pub sender_transactions_max: usize,
    /// How long a transaction may wait for others before it is packed alone, in ms. Higher: fuller batches, more latency.
    pub batch_delay_ms: u64,
    /// Most own batches that are not yet final; beyond it transactions wait in the pool instead.
    pub own_batches_max: usize,
    /// Most bytes of open batches in memory, each author an equal part.
    pub held_bytes_max: usize,
    /// Most open batches of one author.
    pub author_batches_max: usize,
    /// Most batches that one validator may have announced and we don't hold.
    pub unknown_announcements_max: usize,
    /// What a refused client is told to wait, in ms.
    pub retry_after_ms: u64,
    /// Heights after which a forwarded transaction without receipt is forwarded again.
    pub forward_patience: u64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            transactions_max: 65_536,
            bytes_max: 64 << 20,
            forwarder_transactions_max: 16_384,
            sender_transactions_max: types::NONCE_WINDOW as usize,
            batch_delay_ms: 10,
            own_batches_max: 64,
            held_bytes_max: 256 << 20,
            author_batches_max: 256,
            unknown_announcements_max: 1_024,
            retry_after_ms: 200,
            forward_patience: 64,
        }
    }
}

/// Why a configuration can't work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A limit of zero would stop everything.
    #[error("{0} must not be zero")]
    Zero(&'static str),
}

impl Config {
    /// Checks that every limit leaves room for something.
    ///
    /// # Errors
    /// [`ConfigError`] names the first option that doesn't.
    pub fn check(&self) -> Result<(), ConfigError> {
        let limits = [
            ("transactions_max", self.transactions_max),
            ("bytes_max", self.bytes_max),
            ("forwarder_transactions_max", self.forwarder_transactions_max),
            ("sender_transactions_max", self.sender_transactions_max),
            ("own_batches_max", self.own_batches_max),
            ("held_bytes_max", self.held_bytes_max),
            ("author_batches_max", self.author_batches_max),
            ("unknown_announcements_max", self.unknown_announcements_max),
        ];
        match limits.iter().find(|(_, limit)| *limit == 0) {
            Some((name, _)) => Err(ConfigError::Zero(name)),
            None => Ok(()),
        }
    }
}
