//! Differential fuzzing: the native verdict against the kernel's program, over golden packets that were bent by a seeded generator.
//!
//! `EBPF_FUZZ_SEED` and `EBPF_FUZZ_INPUTS` choose another run. A difference is shrunk to the shortest and most zeroed packet
//! that still shows it, and told with its seed.

use crate::golden::kernel;
use guard::kernel::sys::test_run;
use kernel_shared::{golden, inspect};
use std::os::fd::AsFd;

/// Inputs of a run that is not told otherwise: about a second.
const INPUTS: u64 = 20_000;
/// The seed of a run that is not told otherwise: a test that fails once, fails again.
const SEED: u64 = 0x6562_7066;
/// Shortest frame that the kernel runs a program over.
const BYTES_MIN: usize = 14;
/// Longest frame that mutations make.
const BYTES_MAX: usize = 1600;

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// Values that parsers trip over.
const INTERESTING: [u8; 14] = [0, 1, 4, 5, 6, 8, 17, 43, 44, 51, 60, 0x45, 0x60, 0xff];
/// Ethertypes that parsers trip over.
const ETHERTYPES: [[u8; 2]; 5] = [[0x08, 0x00], [0x86, 0xdd], [0x81, 0x00], [0x88, 0xa8], [0x08, 0x06]];

/// Bends a frame once.
fn mutate(frame: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(frame.len());
    match random.below(9) {
        0 => frame[at] ^= 1 << random.below(8),
        1 => frame[at] = random.next() as u8,
        2 => frame[at] = INTERESTING[random.below(INTERESTING.len())],
        3 => frame.truncate(at.max(BYTES_MIN)),
        // The second half of another packet behind the first half of this one.
        4 => {
            let from = random.below(other.len());
            frame.truncate(at);
            frame.extend(&other[from..]);
        }
        // A tag, or some other bytes, in between.
        5 => {
            let tag = ETHERTYPES[random.below(ETHERTYPES.len())];
            frame.splice(12..12, [tag[0], tag[1], 0, 7]);
        }
        6 => {
            let bytes: Vec<u8> = (0..random.below(4) * 4).map(|_| INTERESTING[random.below(INTERESTING.len())]).collect();
            frame.splice(at..at, bytes);
        }
        7 => {
            let until = (at + random.below(8)).min(frame.len());
            frame.drain(at..until);
        }
        _ => {
            let ethertype = ETHERTYPES[random.below(ETHERTYPES.len())];
            frame[12..14].copy_from_slice(&ethertype);
        }
    }
    frame.truncate(BYTES_MAX);
    if frame.len() < BYTES_MIN {
        frame.resize(BYTES_MIN, 0);
    }
}

/// The shortest prefix, then the most zeros, that still differ.
fn shrink(frame: &[u8], differs: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let length = (BYTES_MIN..=frame.len()).find(|length| differs(&frame[..*length])).unwrap_or(frame.len());
    let mut frame = frame[..length].to_vec();
    for at in 0..frame.len() {
        let kept = std::mem::take(&mut frame[at]);
        if !differs(&frame) {
            frame[at] = kept;
        }
    }
    frame
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

#[test]
fn bent_packets_get_the_same_verdict_in_the_kernel() {
    if !crate::support::privileged("bent_packets_get_the_same_verdict_in_the_kernel") {
        return;
    }
    let (seed, inputs) = (number("EBPF_FUZZ_SEED", SEED), number("EBPF_FUZZ_INPUTS", INPUTS));
    let (kernel, model) = (kernel(), golden::model());
    let cases = golden::cases();
    let mut random = Random(seed);
    let verdicts = |frame: &[u8]| (inspect(frame, &model).encode(), test_run(kernel.loaded.explain.as_fd(), frame).unwrap());
    let differs = |frame: &[u8]| {
        let (native, kernel) = verdicts(frame);
        native != kernel
    };
    let mut seen = std::collections::BTreeMap::<u32, u64>::new();
    for input in 0..inputs {
        let mut frame = cases[random.below(cases.len())].frame.clone();
        for _ in 0..=random.below(3) {
            let other = random.below(cases.len());
            mutate(&mut frame, &cases[other].frame, &mut random);
        }
        let (native, inside) = verdicts(&frame);
        *seen.entry(native & 0xff).or_default() += 1;
        if native != inside {
            let minimal = shrink(&frame, differs);
            let (native, inside) = verdicts(&minimal);
            let hex: String = minimal.iter().map(|byte| format!("{byte:02x}")).collect();
            panic!("seed {seed}, input {input}: native {native:#010x}, kernel {inside:#010x}, packet {hex}");
        }
    }
    eprintln!("{inputs} inputs of seed {seed}: reasons {seen:?}");
    // A generator that only makes rubbish proves nothing: verdicts of all steps have to come out.
    assert!(inputs < INPUTS || seen.len() >= 10, "{seen:?}");
}

#[test]
fn a_difference_is_shrunk_to_what_shows_it() {
    let frame: Vec<u8> = (1..=60).collect();
    assert_eq!(shrink(&frame, |frame| frame.len() > 20 && frame[3] != 0), {
        let mut minimal = vec![0; 21];
        minimal[3] = 4;
        minimal
    });
}
