//! Frames of strangers, through the parser and the verdict.
#![no_main]

use kernel_shared::{golden, invariants, model::Model};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static SCENE: LazyLock<Model> = LazyLock::new(golden::model);

fuzz_target!(|frame: &[u8]| invariants::packet(frame, &SCENE));
