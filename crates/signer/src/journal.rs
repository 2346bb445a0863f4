//! The journal's bytes. Drawn in `docs/spec/journal.md`; version 1.
//!
//! ```text
//! header   magic 8 │ version u32 │ key 32 │ cut 0/1 u8 │ cut epoch u64 │ cut view u64 │ check 8      (69 bytes)
//! record   length u32 │ check 8 │ payload: borsh of Record                                           (12 + length bytes)
//! end      a length of zero, or the end of the bytes
//! ```
//! Integers are little-endian. A check is the first 8 bytes of a tagged SHA-256 over position and payload: a record counts only
//! where it was written, so what an older journal left behind the end is never read as a record.

use types::{Epoch, Hash, PublicKey, View, decode, encode};

use crate::record::Record;

const MAGIC: &[u8; 8] = b"EBPFSIGN";
const VERSION: u32 = 1;
const CHECK_TAG: &str = "ebpf-blockchain/journal/1";
const CHECK_BYTES: usize = 8;
const PREFIX_BYTES: usize = 4 + CHECK_BYTES;

/// Bytes of the header.
pub(crate) const HEADER_BYTES: usize = 8 + 4 + 32 + 1 + 8 + 8 + CHECK_BYTES;

/// Most bytes of a record's payload.
pub(crate) const RECORD_BYTES_MAX: usize = 256 * 1024;

/// A place in the chain: everything at or below it is final.
pub(crate) type Position = (Epoch, View);

/// Why bytes are no journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// Damaged at this byte, and not at the end.
    Damaged(u64),
    Version(u32),
}

/// A journal's content.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Journal {
    pub(crate) key: PublicKey,
    pub(crate) cut: Option<Position>,
    pub(crate) records: Vec<Record>,
    /// Bytes up to the end of the last whole record.
    pub(crate) len: usize,
    /// Whether something that is no whole record lies behind.
    pub(crate) torn: bool,
}

fn check(position: usize, payload: &[u8]) -> [u8; CHECK_BYTES] {
    let bytes = [&(position as u64).to_le_bytes()[..], payload].concat();
    let mut out = [0; CHECK_BYTES];
    out.copy_from_slice(&Hash::tagged(CHECK_TAG, &bytes).0[..CHECK_BYTES]);
    out
}

/// The header's bytes.
pub(crate) fn header(key: &PublicKey, cut: Option<Position>) -> Vec<u8> {
    let (epoch, view) = cut.unwrap_or_default();
    let mut out = Vec::with_capacity(HEADER_BYTES);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&key.0);
    out.push(u8::from(cut.is_some()));
    out.extend_from_slice(&epoch.0.to_le_bytes());
    out.extend_from_slice(&view.0.to_le_bytes());
    let check = check(0, &out);
    out.extend_from_slice(&check);
    out
}

/// A record's bytes at a position; none if it is too large.
pub(crate) fn record(position: usize, record: &Record) -> Result<Vec<u8>, usize> {
    let payload = encode(record);
    if payload.len() > RECORD_BYTES_MAX {
        return Err(payload.len());
    }
    let mut out = Vec::with_capacity(PREFIX_BYTES + payload.len());
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&check(position, &payload));
    out.extend_from_slice(&payload);
    Ok(out)
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// The payload of a whole record at a position.
fn payload_at(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let length = u32::from_le_bytes(take::<4>(bytes, at)?) as usize;
    if length == 0 || length > RECORD_BYTES_MAX {
        return None;
    }
    let start = at + PREFIX_BYTES;
    let payload = bytes.get(start..start.checked_add(length)?)?;
    (take::<CHECK_BYTES>(bytes, at + 4)? == check(at, payload)).then_some(payload)
}

fn read_header(bytes: &[u8]) -> Result<(PublicKey, Option<Position>), Broken> {
    let damaged = Broken::Damaged(0);
    let body = HEADER_BYTES - CHECK_BYTES;
    let head = bytes.get(..body).ok_or(damaged)?;
    if take::<8>(head, 0) != Some(*MAGIC) {
        return Err(damaged);
    }
    let version = u32::from_le_bytes(take(head, 8).ok_or(damaged)?);
    if version != VERSION {
        return Err(Broken::Version(version));
    }
    if take::<CHECK_BYTES>(bytes, body).ok_or(damaged)? != check(0, head) {
        return Err(damaged);
    }
    let key = PublicKey(take(head, 12).ok_or(damaged)?);
    let epoch = Epoch(u64::from_le_bytes(take(head, 45).ok_or(damaged)?));
    let view = View(u64::from_le_bytes(take(head, 53).ok_or(damaged)?));
    Ok((key, (head.get(44) == Some(&1)).then_some((epoch, view))))
}

/// Reads a journal; none if there never was one (no bytes, or zeros only).
///
/// What is no whole record at the end is a torn tail: each record is synced before the next is written, so only the last can
/// be torn, and its signature never left. If a whole record lies behind it, bytes in the middle are damaged.
pub(crate) fn read(bytes: &[u8]) -> Result<Option<Journal>, Broken> {
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let (key, cut) = read_header(bytes)?;
    let mut records = Vec::new();
    let mut len = HEADER_BYTES;
    while let Some(payload) = payload_at(bytes, len) {
        // Its check holds, so it is what some version of this program wrote.
        let record = decode(payload, RECORD_BYTES_MAX).map_err(|_| Broken::Damaged(len as u64))?;
        records.push(record);
        len += PREFIX_BYTES + payload.len();
    }
    let rest = bytes.get(len..).unwrap_or_default();
    let torn = rest.iter().any(|byte| *byte != 0);
    if torn && (len + 1..bytes.len()).any(|at| payload_at(bytes, at).is_some()) {
        return Err(Broken::Damaged(len as u64));
    }
    Ok(Some(Journal { key, cut, records, len, torn }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::{ChainId, Signature, SignedStatement, Statement};

    fn sample(view: u64) -> Record {
        let statement = Statement::nullify(ChainId::default(), Epoch(3), View(view));
        let signed = SignedStatement { statement, key: PublicKey([1; 32]), signature: Signature([2; 64]) };
        Record { signed, certificate: None, block: None }
    }

    fn journal(views: &[u64]) -> Vec<u8> {
        let mut bytes = header(&PublicKey([1; 32]), Some((Epoch(2), View(9))));
        for view in views {
            let record = record(bytes.len(), &sample(*view)).unwrap();
            bytes.extend_from_slice(&record);
        }
        bytes
    }

    #[test]
    fn round_trip_with_and_without_padding() {
        let mut bytes = journal(&[4, 5, 6]);
        let len = bytes.len();
        for _ in 0..2 {
            let journal = read(&bytes).unwrap().unwrap();
            assert_eq!((journal.len, journal.torn, journal.cut), (len, false, Some((Epoch(2), View(9)))));
            assert_eq!(journal.records, [sample(4), sample(5), sample(6)]);
            bytes.resize(len + 4_096, 0);
        }
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[0; 100]), Ok(None));
    }

    #[test]
    fn any_torn_tail_is_cut() {
        let bytes = journal(&[4, 5, 6]);
        let whole = journal(&[4, 5]).len();
        // A record's last bytes may be zeros: torn there, it is whole.
        let needed = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        for end in whole..=needed {
            let mut torn = bytes[..end].to_vec();
            torn.resize(bytes.len() + 64, 0);
            let journal = read(&torn).unwrap().unwrap();
            assert_eq!((journal.records.len(), journal.len), (2, whole), "torn at {end}");
            assert_eq!(journal.torn, end > whole);
        }
    }

    #[test]
    fn any_flip_before_the_last_record_stops() {
        let bytes = journal(&[4, 5, 6]);
        let last = journal(&[4, 5]).len();
        for at in 0..last {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            let broken = read(&bad).unwrap_err();
            let version = (8..12).contains(&at);
            assert_eq!(matches!(broken, Broken::Version(_)), version, "byte {at}: {broken:?}");
        }
    }

    #[test]
    fn a_record_counts_only_where_it_was_written() {
        let mut bytes = journal(&[4]);
        let len = bytes.len();
        let elsewhere = record(len + 8, &sample(5)).unwrap();
        bytes.extend_from_slice(&elsewhere);
        let journal = read(&bytes).unwrap().unwrap();
        assert_eq!((journal.records.len(), journal.torn), (1, true));
    }
}
