//! Limits and intervals of a replica. None of them decides validity: that is in the epoch record.

/// Rules to break, for controls that a simulator must find. Exists in no normal build.
#[cfg(feature = "planted-bugs")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bugs {
    /// Cut the journal at a finality certificate that storage has not synced.
    pub early_cut: bool,
}

/// Everything a replica may be told to do otherwise. Times are in milliseconds.
#[derive(Clone, Debug)]
pub struct Config {
    /// The engine's.
    pub consensus: consensus::Config,
    /// The mempool's.
    pub mempool: mempool::Config,
    /// How long between two tries of a fetch or a sync, and how often a peer's fetches are answered (twice as often).
    pub resend_ms: u64,
    /// How long batches' ids are collected before they are announced together.
    pub announce_delay_ms: u64,
    /// Most peers; more are ignored until one goes.
    pub peers_max: usize,
    /// Most batches or lists whose signatures are being verified.
    pub verifying_max: usize,
    /// Most reads from storage under way.
    pub loads_max: usize,
    /// Most verified signatures remembered.
    pub verified_max: usize,
    /// Most final blocks waiting for their batches or for a certificate in a sync.
    pub sync_blocks_max: usize,
    /// To how many validators a node that is none forwards a transaction.
    pub forward_peers: usize,
    /// Most blocks executed for one input, so that a catching-up node still answers.
    pub execute_blocks_max: usize,
    /// Most operations given to storage and not answered; more are held back at their source.
    pub stores_max: usize,
    /// Rules to break.
    #[cfg(feature = "planted-bugs")]
    pub bugs: Bugs,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            consensus: consensus::Config::default(),
            mempool: mempool::Config::default(),
            resend_ms: 200,
            announce_delay_ms: 2,
            peers_max: 256,
            verifying_max: 1_024,
            loads_max: 256,
            verified_max: 16_384,
            sync_blocks_max: 1_024,
            forward_peers: 2,
            execute_blocks_max: 4,
            stores_max: 64,
            #[cfg(feature = "planted-bugs")]
            bugs: Bugs::default(),
        }
    }
}
