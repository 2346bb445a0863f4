//! From what storage holds to what a replica begins with.

use std::sync::Arc;

use anyhow::{Context, Result};
use ledger::Ledger;
use replica::{Boot, ExecutedHeight};
use storage::{READ_BLOCKS_MAX, Storage};
use types::{Block, Epoch, Height};

/// Reads everything that recovery needs. Cost: the state once, and the blocks of about one `batch_life`.
///
/// # Errors
/// If the storage is damaged.
pub fn read(storage: &Storage) -> Result<Boot> {
    let genesis = storage.genesis().clone();
    let tip = storage.progress().tip;
    let ledger = Ledger::restore(&storage.state()).context("restoring the state")?;
    let (mut certificate, mut life, mut epoch) = (None, 0, Epoch(0));
    if tip.height > Height(0) {
        let header = storage.header(tip.height)?.context("the tip's header is missing")?;
        certificate = Some(storage.certificate(tip.height)?.context("the tip's finality certificate is missing")?);
        epoch = header.epoch;
        life = storage.epoch(epoch)?.context("the record of the tip's epoch is missing")?.params.batch_life;
    }
    // Headers above the ledger's height are judged again, and may name any height above what the ledger's own header names.
    let (named, first_epoch) = match ledger.height() {
        Height(0) => (Height(0), Epoch(0)),
        height => {
            let header = storage.header(height)?.with_context(|| format!("the header of height {height} is missing"))?;
            (header.executed, header.epoch)
        }
    };
    let epochs = (first_epoch.0..=epoch.0 + 2)
        .filter_map(|number| storage.epoch(Epoch(number)).transpose())
        .collect::<Result<Vec<_>, _>>()?;
    let executed = executed(storage, named, ledger.height())?;
    let first = ledger.height().min(Height(tip.height.since(Height(life))).next()).max(Height(1));
    let blocks = blocks(storage, first, tip.height)?;
    let mut batches = storage.pending_batches()?;
    for block in blocks.iter().filter(|block| block.header.height > ledger.height()) {
        batches.extend(storage.batches_of(block)?.into_iter().flatten());
    }
    Ok(Boot { genesis, epochs, tip: certificate, ledger, executed, blocks, batches })
}

fn executed(storage: &Storage, above: Height, up_to: Height) -> Result<Vec<ExecutedHeight>> {
    let mut found = Vec::new();
    let mut height = above.next();
    while height <= up_to {
        let record = storage.executed(height)?.with_context(|| format!("the receipts of height {height} are missing"))?;
        found.push(ExecutedHeight { height, state_root: record.state_root, receipts: record.receipts });
        height = height.next();
    }
    Ok(found)
}

fn blocks(storage: &Storage, first: Height, last: Height) -> Result<Vec<Arc<Block>>> {
    let mut found = Vec::new();
    let mut next = first;
    while next <= last {
        let part = storage.blocks(next, READ_BLOCKS_MAX)?;
        anyhow::ensure!(!part.is_empty(), "the block of height {next} is missing");
        next = next.plus(part.len() as u64);
        found.extend(part.into_iter().map(Arc::new));
    }
    Ok(found)
}
