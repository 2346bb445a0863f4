//! Texts of prefixes, as lists and as ban files.
#![no_main]

use guard::invariants::files;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    files::list(text);
    if let Ok(text) = std::str::from_utf8(text) {
        files::ban_file(text);
    }
});
