//! The guard's configuration file.
#![no_main]

use guard::invariants::config::config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| config(text));
