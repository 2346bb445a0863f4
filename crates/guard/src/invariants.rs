//! What must hold for every text that somebody may send: the bodies of the fuzz targets, and of bounded tests.
//!
//! Each function panics if something doesn't hold.

use crate::{
    Prefix, Request, Response,
    explain::{self, Explained},
};
use std::net::IpAddr;

#[cfg(feature = "kernel")]
pub mod config;
#[cfg(feature = "kernel")]
pub mod files;

/// A text as a prefix: what is read is written the same way, and lies in itself.
pub fn prefix(text: &str) {
    let Ok(prefix) = text.parse::<Prefix>() else { return };
    assert_eq!(prefix.to_string().parse(), Ok(prefix), "{text}");
    assert!(prefix.length() <= if prefix.is_v6() { 128 } else { 32 });
    assert_eq!(prefix.is_v6(), matches!(prefix.address(), IpAddr::V6(_)));
    assert!(prefix.contains(prefix.address()) && prefix.overlaps(&prefix));
    assert_eq!(Prefix::new(prefix.address(), prefix.length()), Ok(prefix));
    assert!(prefix.widened().overlaps(&prefix) && prefix.widened().length() <= prefix.length());
}

/// A line as a request: what is read is written and read again as the same, and no request that changes anything is taken for a question.
pub fn request(line: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<Request>(line) {
        let again = serde_json::to_vec(&request).map(|line| serde_json::from_slice::<Request>(&line));
        assert!(again.is_ok_and(|again| again.is_ok_and(|again| again == request)), "{request:?}");
        if let Request::TestRun { packet } = &request {
            self::packet(packet);
        }
    }
    // A client reads what a guard of another version says.
    let _ = serde_json::from_slice::<Response>(line);
}

/// A text as a packet in hexadecimal: within its bounds, and the same without blanks.
pub fn packet(text: &str) {
    let Some(packet) = explain::packet(text) else { return };
    assert!((explain::PACKET_BYTES_MIN..=explain::PACKET_BYTES_MAX).contains(&packet.len()));
    let hex: String = packet.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(explain::packet(&hex), Some(packet));
}

/// Any word as a verdict: explained to a step that names its reason, or no verdict.
pub fn verdict(word: u32) {
    if let Some(explained) = Explained::decode(word) {
        let steps = explained.steps();
        assert_eq!(steps.last().map(|step| step.outcome.as_str()), Some(explained.reason.as_str()));
    }
}

/// Texts to begin with: one of each kind that is read.
pub const SEEDS: [&str; 12] = [
    "10.0.0.7",
    "10.0.0.0/8",
    "2001:db8::/32",
    "::ffff:10.0.0.7/120",
    r#"{"request":"stats"}"#,
    r#"{"request":"ban","address":"10.0.0.7","ttl_ms":60000,"offence":"bad_signature","note":"x"}"#,
    r#"{"request":"flow_add","protocol":"tcp","address":"fd00::1","port":9000,"class":"floor","label":"v1"}"#,
    r#"{"request":"budget","name":"syn_source","rate":10,"burst":20}"#,
    r#"{"request":"syn_proxy","state":"on"}"#,
    r#"{"request":"test_run","packet":"ffffffffffff0200000000010806"}"#,
    r#"{"response":"error","code":"floor","message":"no"}"#,
    r#"{"response":"flow","row":null,"generation":1}"#,
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{prelude::*, sample::Index};

    /// A text with some bytes replaced, or inserted (true).
    pub(super) fn bent(text: &str, bends: Vec<(Index, u8, bool)>) -> Vec<u8> {
        let mut bytes = text.as_bytes().to_vec();
        for (at, value, insert) in bends {
            let at = at.index(bytes.len());
            if insert { bytes.insert(at, value) } else { bytes[at] = value }
        }
        bytes
    }

    #[test]
    fn hold_for_the_seeds() {
        for seed in SEEDS {
            prefix(seed);
            request(seed.as_bytes());
        }
        let read = SEEDS.iter().filter(|seed| serde_json::from_str::<Request>(seed).is_ok()).count();
        assert_eq!((read, SEEDS.iter().filter(|seed| seed.parse::<Prefix>().is_ok()).count()), (6, 4));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn hold_for_bent_texts(
            seed in prop::sample::select(&SEEDS[..]),
            bends in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 0..5),
            word: u32,
        ) {
            let bytes = bent(seed, bends);
            request(&bytes);
            let text = String::from_utf8_lossy(&bytes);
            prefix(&text);
            packet(&text);
            verdict(word);
        }

        #[test]
        fn hold_for_any_prefix(address: u128, v6: bool, length in 0u8..=130) {
            let address = if v6 { IpAddr::V6(address.into()) } else { IpAddr::V4((address as u32).into()) };
            prefix(&format!("{address}/{length}"));
        }

        #[test]
        fn hold_for_any_hexadecimal(packet in "([0-9a-fA-F]{2}[ :]?){10,40}") {
            super::packet(&packet);
        }
    }
}
