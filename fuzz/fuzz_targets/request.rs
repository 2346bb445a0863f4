//! Lines on the guard's socket, and what a client reads from it.
#![no_main]

use guard::invariants;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|line: &[u8]| invariants::request(line));
