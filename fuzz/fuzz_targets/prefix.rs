//! Prefixes and packets in text, and words that may be verdicts.
#![no_main]

use guard::invariants;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        invariants::prefix(text);
        invariants::packet(text);
    }
    if let Some(word) = bytes.first_chunk() {
        invariants::verdict(u32::from_le_bytes(*word));
    }
});
