//! The same packets through the kernel's program and through the native verdict: equal, bit for bit.

use crate::support::{private_mounts, privileged};
use guard::kernel::{
    bpffs, load,
    sys::test_run,
    tables::{MAPS, Tables},
};
use kernel_shared::{
    abi::{BANS_MAX, COUNTER_SLOTS, FLOWS_MAX, Flow4, Flow6, FlowValue, RANGES_MAX, SLOT_EVENTS_LOST, TCP, UDP, VALIDATORS_MAX},
    account::filter,
    ban::{bit4, bit6, host4, host6},
    control::{Config, Mode, WORD_CONFIG},
    golden::{self, PORT, QUIC_PORT},
    inspect,
};
use proptest::{prelude::*, test_runner::TestRunner};
use std::os::fd::{AsFd, AsRawFd};

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const TC_ACT_SHOT: u32 = 2;
/// -1.
const TC_ACT_UNSPEC: u32 = u32::MAX;

pub struct Kernel {
    pub loaded: load::Loaded,
    tables: Tables,
    counters: guard::Maps,
    folder: tempfile::TempDir,
}

/// Loads the object without attaching it, and puts the golden scene into its maps.
pub fn kernel() -> Kernel {
    private_mounts();
    let folder = tempfile::tempdir().unwrap();
    bpffs::ensure(folder.path()).unwrap();
    let loaded = load::load(folder.path()).unwrap();
    let tables = Tables::open(folder.path()).unwrap();
    tables.set_ports(&[(TCP, PORT), (UDP, PORT), (UDP, QUIC_PORT)], &[QUIC_PORT]).unwrap();
    let scene = golden::scene();
    put_flows(&tables, &scene.flows4, &scene.flows6);
    scene.bans4.iter().for_each(|(key, value)| tables.bans4.set(key, value, BANS_MAX as usize).unwrap());
    scene.bans6.iter().for_each(|(key, value)| tables.bans6.set(key, value, BANS_MAX as usize).unwrap());
    scene.ranges4.iter().for_each(|(key, value)| tables.ranges4.set(key, value, RANGES_MAX as usize).unwrap());
    scene.ranges6.iter().for_each(|(key, value)| tables.ranges6.set(key, value, RANGES_MAX as usize).unwrap());
    let max = VALIDATORS_MAX as usize;
    scene.validators4.iter().for_each(|(key, value)| tables.validators4.set(key, value, max).unwrap());
    scene.validators6.iter().for_each(|(key, value)| tables.validators6.set(key, value, max).unwrap());
    scene.validators4.iter().map(|(key, _)| host4(*key)).for_each(|bit| tables.hosts.write(bit.word, bit.mask, true));
    scene.validators6.iter().map(|(key, _)| host6(*key)).for_each(|bit| tables.hosts.write(bit.word, bit.mask, true));
    let bits4 = scene.bans4.iter().map(|(key, _)| bit4(*key)).chain(scene.ranges4.iter().map(|(key, _)| bit4(key.address)));
    bits4.for_each(|bit| tables.bits4.write(bit.word, bit.mask, true));
    let high = |octets: &[u8; 16]| u64::from_ne_bytes(octets[..8].try_into().unwrap());
    let bits6 = scene.bans6.iter().map(|(key, _)| *key).chain(scene.ranges6.iter().map(|(key, _)| high(&key.address)));
    bits6.map(|network| bit6([network, 0])).for_each(|bit| tables.bits6.write(bit.word, bit.mask, true));
    let open = |name| guard::kernel::tables::open_for_others(folder.path(), name).unwrap();
    let counters =
        guard::Maps::from_descriptors(&open("COUNTERS"), &open("ROWS"), &open("LATENCY"), load::cpus().unwrap()).unwrap();
    Kernel { loaded, tables, counters, folder }
}

fn put_flows(tables: &Tables, flows4: &[(Flow4, FlowValue)], flows6: &[(Flow6, FlowValue)]) {
    flows4.iter().for_each(|(key, value)| tables.flows4.set(key, value, FLOWS_MAX as usize).unwrap());
    flows6.iter().for_each(|(key, value)| tables.flows6.set(key, value, FLOWS_MAX as usize).unwrap());
    let hosts = flows4.iter().map(|(key, _)| host4(key.address)).chain(flows6.iter().map(|(key, _)| host6(key.address)));
    hosts.for_each(|bit| tables.hosts.write(bit.word, bit.mask, true));
}

#[test]
fn golden_packets_get_the_same_verdict_in_the_kernel() {
    if !privileged("golden_packets_get_the_same_verdict_in_the_kernel") {
        return;
    }
    let kernel = kernel();
    let model = golden::model();
    let cases = golden::cases();
    let names: std::collections::BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), cases.len(), "two golden packets share a name");
    // Each ending has to be there, so that the table can't shrink to easy ones; the budgets' have their own in `floods`.
    let reasons: std::collections::BTreeSet<&str> = cases.iter().map(|case| case.reason.as_str()).collect();
    eprintln!("{} golden packets", cases.len());
    assert!(cases.len() >= 1000 && reasons.len() >= 12, "{} packets, {reasons:?}", cases.len());
    for case in &cases {
        let native = inspect(&case.frame[..], &model);
        assert_eq!((native.reason(), native.class(), native.drop()), (case.reason, case.class, case.drop), "{}", case.name);
        let word = test_run(kernel.loaded.explain.as_fd(), &case.frame).unwrap();
        assert_eq!(word, native.encode(), "{}: kernel {word:#010x}, native {:#010x}", case.name, native.encode());
    }
}

#[test]
fn floods_meet_the_same_budgets_in_the_kernel() {
    if !privileged("floods_meet_the_same_budgets_in_the_kernel") {
        return;
    }
    for flood in golden::floods() {
        let (kernel, name) = (kernel(), flood.name.clone());
        flood.limits.iter().for_each(|(budget, limit)| kernel.tables.set_control(budget.word(), limit.word()).unwrap());
        put_flows(&kernel.tables, &flood.flows4, &flood.flows6);
        let (model, packets) = flood.over_a_model();
        for (index, (frame, reason)) in packets.iter().enumerate() {
            let native = inspect(&frame[..], &model);
            assert_eq!(native.reason(), *reason, "{name}, packet {index}");
            let word = test_run(kernel.loaded.explain.as_fd(), frame).unwrap();
            assert_eq!(word, native.encode(), "{name}, packet {index}");
        }
    }
}

#[test]
fn golden_packets_are_counted_the_same_in_every_mode() {
    if !privileged("golden_packets_are_counted_the_same_in_every_mode") {
        return;
    }
    let modes = Mode::ALL.into_iter().flat_map(|mode| [(mode, false, false), (mode, false, true)]);
    for (mode, in_tcx, unreadable) in modes.chain([(Mode::Enforce, true, true)]) {
        let mut kernel = kernel();
        let model = golden::model();
        let (program, drop, pass) = match in_tcx {
            true => (kernel.loaded.tcx().unwrap(), TC_ACT_SHOT, TC_ACT_UNSPEC),
            false => (kernel.loaded.guard.try_clone().unwrap(), XDP_DROP, XDP_PASS),
        };
        // Sampling off: events and stamps depend on the CPU that a test run lands on.
        let config = Config::new(mode).with_event_shift(31).with_latency_shift(31).with_drop_unreadable(unreadable);
        kernel.tables.set_control(WORD_CONFIG, config.word()).unwrap();
        model.set_control(WORD_CONFIG, config.word());
        // The kernel makes no socket buffer for a test run of a frame that ends inside its IP header.
        for case in golden::cases().iter().filter(|case| !in_tcx || case.frame.len() >= 14 + 40) {
            let outcome = filter(&case.frame[..], &model);
            let action = test_run(program.as_fd(), &case.frame).unwrap();
            assert_eq!(action, if outcome.drop { drop } else { pass }, "{}", case.name);
        }
        for slot in (0..COUNTER_SLOTS).filter(|slot| *slot != SLOT_EVENTS_LOST) {
            assert_eq!(
                kernel.counters.slot(slot).packets,
                model.counted(slot),
                "slot {slot}, mode {}, TCX {in_tcx}",
                mode.as_str()
            );
        }
    }
}

#[test]
fn mutated_packets_get_the_same_verdict_in_the_kernel() {
    if !privileged("mutated_packets_get_the_same_verdict_in_the_kernel") {
        return;
    }
    let kernel = kernel();
    let cases = golden::cases();
    let model = golden::model();
    let mutation = (
        any::<prop::sample::Index>(),
        prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        any::<prop::sample::Index>(),
        any::<bool>(),
    );
    let mut runner = TestRunner::new(ProptestConfig { cases: 5000, failure_persistence: None, ..ProptestConfig::default() });
    let result = runner.run(&mutation, |(index, changes, cut, whole)| {
        let mut frame = index.get(&cases).frame.clone();
        for (position, value) in changes {
            let position = position.index(frame.len());
            frame[position] = value;
        }
        if !whole {
            frame.truncate(14.max(cut.index(frame.len()) + 1));
        }
        // The switch of the config word is off on both sides: the control array is zero.
        let word = test_run(kernel.loaded.explain.as_fd(), &frame).unwrap();
        prop_assert_eq!(word, inspect(&frame[..], &model).encode(), "{:02x?}", frame);
        Ok(())
    });
    result.unwrap();
}

#[test]
fn the_maps_of_an_instance_fit_their_budget() {
    if !privileged("the_maps_of_an_instance_fit_their_budget") {
        return;
    }
    let kernel = kernel();
    let mut total = 0;
    for name in MAPS {
        let fd = guard::kernel::sys::open_pin(&kernel.folder.path().join(name), 0).unwrap();
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).unwrap();
        let line = info.lines().find(|line| line.starts_with("memlock:")).unwrap();
        total += line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap();
    }
    assert!(total > 1 << 20);
    // Counters and rows grow with the CPUs; the rest is fixed.
    let per_cpu = guard::reader::mapped_bytes(load::cpus().unwrap()).iter().map(|(_, bytes)| *bytes as u64).sum::<u64>();
    eprintln!("maps: {} KiB, of it {} KiB per-CPU arrays", total / 1024, per_cpu / 1024);
    assert!(total - per_cpu <= 12 << 20, "{total} bytes, {per_cpu} of them per CPU");
}
