//! Where fields lie in this kernel's structs: a reader of `/sys/kernel/btf/vmlinux` that knows just enough of BTF.

/// The kernel's own BTF.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
/// Anonymous structs and unions that a look-up descends into.
const DEPTH_MAX: usize = 8;

const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_PROTOTYPE: u32 = 13;

/// Parsed type table.
pub struct Btf {
    data: Vec<u8>,
    strings: usize,
    /// Offset of each type's record; type ids start at 1.
    types: Vec<usize>,
}

impl Btf {
    /// Parses BTF; `None` if it is none.
    pub fn parse(data: Vec<u8>) -> Option<Btf> {
        if half(&data, 0)? != 0xeb9f {
            return None;
        }
        let header = word(&data, 4)? as usize;
        let first = header.checked_add(word(&data, 8)? as usize)?;
        let end = first.checked_add(word(&data, 12)? as usize)?;
        let strings = header.checked_add(word(&data, 16)? as usize)?;
        let mut types = Vec::new();
        let mut offset = first;
        while offset < end {
            types.push(offset);
            let info = word(&data, offset + 4)?;
            let count = (info & 0xffff) as usize;
            offset += 12
                + match info >> 24 & 0x1f {
                    1 | 14 | 17 => 4,
                    3 => 12,
                    KIND_STRUCT | KIND_UNION | 15 | 19 => count * 12,
                    6 | 13 => count * 8,
                    _ => 0,
                };
        }
        Some(Btf { data, strings, types })
    }

    /// Byte offset of a field: `offset("sock", &["__sk_common", "skc_net"])`. Anonymous members are looked through.
    pub fn offset(&self, structure: &str, path: &[&str]) -> Option<u32> {
        let mut record = self
            .types
            .iter()
            .copied()
            .find(|record| self.is_composite(*record) && self.name(*record) == Some(structure.as_bytes()))?;
        let mut bits = 0;
        for (position, field) in path.iter().enumerate() {
            let (offset, kind) = self.member(record, field, DEPTH_MAX)?;
            bits += offset;
            if position + 1 < path.len() {
                record = *self.types.get((kind as usize).checked_sub(1)?)?;
            }
        }
        bits.is_multiple_of(8).then_some(bits / 8)
    }

    /// Values and names of an enumeration; empty if there is none.
    pub fn values(&self, enumeration: &str) -> Vec<(u32, String)> {
        let found = self.named(KIND_ENUM, enumeration).and_then(|record| Some((record, word(&self.data, record + 4)? & 0xffff)));
        let Some((record, count)) = found else { return Vec::new() };
        let value = |index: usize| {
            let entry = record + 12 + index * 8;
            Some((word(&self.data, entry + 4)?, String::from_utf8_lossy(self.name(entry)?).into_owned()))
        };
        (0..count as usize).filter_map(value).collect()
    }

    /// Position of the argument of this enumeration's type in a tracepoint's arguments, as its probe's type (`btf_trace_NAME`) has them.
    pub fn argument(&self, tracepoint: &str, enumeration: &str) -> Option<usize> {
        let typedef = self.named(KIND_TYPEDEF, &format!("btf_trace_{tracepoint}"))?;
        let prototype = self.target(self.target(typedef)?)?;
        let info = word(&self.data, prototype + 4)?;
        if info >> 24 & 0x1f != KIND_PROTOTYPE {
            return None;
        }
        let wanted = self.named(KIND_ENUM, enumeration)?;
        let is_wanted = |index: &usize| {
            let kind = word(&self.data, prototype + 12 + index * 8 + 4);
            kind.and_then(|kind| self.types.get((kind as usize).checked_sub(1)?)) == Some(&wanted)
        };
        // The first argument is the probe's own data.
        (1..(info & 0xffff) as usize).find(is_wanted).map(|position| position - 1)
    }

    fn named(&self, kind: u32, name: &str) -> Option<usize> {
        let is_kind = |record: &usize| word(&self.data, record + 4).is_some_and(|info| info >> 24 & 0x1f == kind);
        self.types.iter().copied().find(|record| is_kind(record) && self.name(*record) == Some(name.as_bytes()))
    }

    /// The record that a typedef or pointer refers to.
    fn target(&self, record: usize) -> Option<usize> {
        self.types.get((word(&self.data, record + 8)? as usize).checked_sub(1)?).copied()
    }

    fn is_composite(&self, record: usize) -> bool {
        word(&self.data, record + 4).is_some_and(|info| matches!(info >> 24 & 0x1f, KIND_STRUCT | KIND_UNION) && info & 0xffff > 0)
    }

    fn name(&self, record: usize) -> Option<&[u8]> {
        let start = self.strings + word(&self.data, record)? as usize;
        let rest = self.data.get(start..)?;
        rest.get(..rest.iter().position(|byte| *byte == 0)?)
    }

    /// Bit offset and type id of a member.
    fn member(&self, record: usize, field: &str, depth: usize) -> Option<(u32, u32)> {
        let info = word(&self.data, record + 4)?;
        if !self.is_composite(record) || depth == 0 {
            return None;
        }
        for index in 0..(info & 0xffff) as usize {
            let entry = record + 12 + index * 12;
            let (kind, raw) = (word(&self.data, entry + 4)?, word(&self.data, entry + 8)?);
            let offset = if info >> 31 == 1 { raw & 0xff_ffff } else { raw };
            let name = self.name(entry)?;
            if name == field.as_bytes() {
                return Some((offset, kind));
            }
            if name.is_empty()
                && let Some(inner) = (kind as usize).checked_sub(1).and_then(|id| self.types.get(id))
                && let Some((nested, kind)) = self.member(*inner, field, depth - 1)
            {
                return Some((offset + nested, kind));
            }
        }
        None
    }
}

fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn half(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn finds_fields_of_the_running_kernel() {
        let Ok(data) = std::fs::read(VMLINUX) else { return };
        let btf = Btf::parse(data).unwrap();
        assert_eq!(btf.offset("sk_buff", &["next"]), Some(0));
        assert!(btf.offset("sk_buff", &["transport_header"]).unwrap() > 0);
        assert!(btf.offset("sock", &["__sk_common", "skc_num"]).unwrap() > 0);
        assert_eq!(btf.offset("sk_buff", &["no_such_field"]), None);
        assert_eq!(btf.offset("no_such_struct", &["next"]), None);
        assert_eq!(btf.argument("kfree_skb", "skb_drop_reason"), Some(2));
        assert_eq!(btf.argument("kfree_skb", "no_such_enum"), None);
        let reasons = btf.values("skb_drop_reason");
        assert!(reasons.iter().any(|(_, name)| name == "SKB_DROP_REASON_NO_SOCKET"));
        assert!(btf.values("no_such_enum").is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(tail in proptest::collection::vec(any::<u8>(), 0..300), lengths: [u8; 3]) {
            let mut data = vec![0x9f, 0xeb, 1, 0, 24, 0, 0, 0, 0, 0, 0, 0, lengths[0], 0, 0, 0, lengths[1], 0, 0, 0, lengths[2], 0, 0, 0];
            data.extend(tail);
            if let Some(btf) = Btf::parse(data) {
                let _ = btf.offset("", &[""]);
                let _ = btf.offset("a", &["b", "c"]);
                let _ = btf.values("");
                let _ = btf.argument("", "");
            }
        }
    }
}
