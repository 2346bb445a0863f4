//! Frames of a state, as text.

use super::{
    state::{Action, Key, SOURCES_MAX, State},
    view,
};
use guard::protocol::{BanInfo, EventInfo, LatencyInfo, RowInfo, Stats};
use ratatui::{Terminal, backend::TestBackend};
use std::{collections::BTreeMap, net::Ipv4Addr};
use types::Offence;

const NOW: u64 = 1_700_000_000_000;

fn counts(list: &[(&str, u64)]) -> BTreeMap<String, u64> {
    list.iter().map(|(name, count)| (name.to_string(), *count)).collect()
}

/// What a guard answers.
fn stats(passed: u64, dropped: u64, packets: u64) -> Stats {
    Stats {
        mode: "enforce".into(),
        xdp_mode: "native".into(),
        interface: "eth0".into(),
        ifindex: 2,
        instance: "default".into(),
        abi_hash: "0".into(),
        started_unix_ms: NOW - 7_620_000,
        adopted: false,
        heartbeat_age_ms: None,
        protect: vec!["tcp/30303".into(), "udp/8000-8020".into()],
        passed: counts(&[("floor", 0), ("known", packets), ("dialing", 0), ("stranger", passed)]),
        out_of_scope: 0,
        unreadable: 0,
        off: 0,
        dropped: counts(&[("rate_source", dropped), ("banned_manual", 0), ("malformed", 3)]),
        dropped_bytes: BTreeMap::new(),
        would_drop: counts(&[("fragment", 1)]),
        events_lost: 0,
        events_unread: 0,
        syn_proxy: "off".into(),
        syn_cookies_sent: 0,
        syn_cookies_valid: 0,
        syn_cookies_invalid: 0,
        bans: 2,
        flows: 1,
        shares: Default::default(),
        latency_stamped: 0,
        latency_lapsed: 0,
        latency_tcp: LatencyInfo::default(),
        latency_udp: LatencyInfo::default(),
        egress: None,
        probes: BTreeMap::new(),
        kernel_drops: BTreeMap::new(),
        rows: vec![RowInfo {
            row: 7,
            generation: 1,
            label: "validator-3".into(),
            flows: 2,
            packets,
            bytes: packets * 100,
            dropped: 4,
            would_drop: 0,
            endpoints: vec![],
            tcp: None,
            latency: vec![],
            latency_p50_ns: Some(65_536),
            latency_p99_ns: None,
        }],
    }
}

fn ban(address: &str, seconds: u64, hits: u64, note: &str) -> BanInfo {
    let (since_unix_ms, until_unix_ms) = (NOW, NOW + 1000 + seconds * 1000);
    BanInfo { address: address.parse().unwrap(), offence: Offence::Manual, since_unix_ms, until_unix_ms, hits, note: note.into() }
}

fn event(address: &str, stands_for: u32) -> EventInfo {
    EventInfo {
        unix_ms: NOW,
        address: address.parse().unwrap(),
        port: 4000,
        local_port: 30303,
        protocol: "tcp".into(),
        reason: "rate_source".into(),
        dropped: true,
        length: 60,
        stands_for,
    }
}

fn state() -> State {
    let mut state = State::default();
    state.sample(NOW, stats(1000, 500, 10), vec![]);
    state.event(&event("198.51.100.7", 192));
    state.event(&event("198.51.100.8", 64));
    let bans = vec![ban("203.0.113.0/24", 7200, 0, "later"), ban("198.51.100.7", 45, 12, "scanner")];
    state.sample(NOW + 1000, stats(1250, 12_845, 30), bans);
    state
}

fn frame(state: &State, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view::draw(frame, state)).unwrap();
    view::text(terminal.backend().buffer())
}

fn line<'a>(frame: &'a str, word: &str) -> &'a str {
    frame.lines().find(|line| line.contains(word)).unwrap_or_else(|| panic!("no {word} in\n{frame}"))
}

#[test]
fn a_small_screen_shows_one_pane() {
    let mut state = state();
    let shown = frame(&state, 80, 24);
    assert_eq!(shown.lines().count(), 24);
    let head = shown.lines().next().unwrap();
    for part in ["ebpf-guard", "default", "ENFORCE", "eth0", "XDP native", "up 2h 07m"] {
        assert!(head.contains(part), "{head}: no {part}");
    }
    assert!(line(&shown, "protects").contains("tcp/30303 udp/8000-8020"));
    assert!(line(&shown, "would drop 0/s").contains("drop 12.3k/s"), "{shown}");
    let drops = line(&shown, "rate_source");
    assert!(drops.contains("12.3k") && drops.contains("12.8k") && drops.contains('█'), "{drops}");
    assert!(line(&shown, "stranger").contains("250"));
    assert!(line(&shown, "fragment").contains("would drop"));
    assert!(!shown.contains("banned_manual"), "what never happened takes no line");
    assert!(!shown.contains("198.51.100.7"), "{shown}");
    state.press(Key::Pane(1));
    let sources = frame(&state, 80, 24);
    assert!(line(&sources, "198.51.100.7").contains("75 %") && line(&sources, "198.51.100.8").contains("25 %"), "{sources}");
    state.press(Key::Next);
    let peers = frame(&state, 80, 24);
    let peer = line(&peers, "validator-3");
    assert!(peer.contains("20") && peer.contains("not visible"), "{peer}");
    assert!(peer.contains(" 66 µs ") && peer.contains(" - "), "{peer}");
    let wide = frame(&state, 109, 24);
    assert!(line(&wide, "validator-3").contains("2000") && !peer.contains("2000"), "bytes a second need room\n{wide}");
    state.press(Key::Next);
    let bans = frame(&state, 80, 24);
    assert!(line(&bans, "198.51.100.7/32").contains("45 s") && line(&bans, "203.0.113.0/24").contains("2h 00m"), "{bans}");
    assert!(bans.find("198.51.100.7/32") < bans.find("203.0.113.0/24"), "the next to end comes first");
}

#[test]
fn a_large_screen_shows_all_four() {
    let shown = frame(&state(), 120, 40);
    for part in ["Verdicts", "Sources", "Peers", "Bans", "rate_source", "198.51.100.8", "validator-3", "203.0.113.0/24", "scanner"]
    {
        assert!(shown.contains(part), "no {part} in\n{shown}");
    }
}

#[test]
fn what_has_no_room_is_left_out_and_not_squeezed() {
    // The smallest screen with all four.
    let shown = frame(&state(), 110, 34);
    let head = line(&shown, "peer ");
    assert!(["pkts/s", "drops/s", "p99", "rtt"].iter().all(|name| head.contains(name)) && !head.contains("retrans"), "{shown}");
    assert!(line(&shown, "validator-3").contains("not visible"), "{shown}");
    assert!(line(&shown, "last reason").contains("share") && shown.contains("rate_source "), "{shown}");
}

#[test]
fn any_size_can_be_drawn() {
    let mut state = state();
    for (width, height) in [(1, 1), (20, 5), (60, 12), (61, 13), (109, 33), (110, 34), (300, 100)] {
        for pane in 0..4 {
            state.press(Key::Pane(pane));
            assert_eq!(frame(&state, width, height).lines().count(), height as usize);
        }
        state.press(Key::Help);
    }
    assert!(frame(&state, 20, 5).contains("is too small"));
    assert!(frame(&State::default(), 80, 24).contains("waiting for the first sample"));
}

#[test]
fn a_pause_keeps_the_picture() {
    let mut state = state();
    state.press(Key::Pause);
    let paused = frame(&state, 120, 40);
    assert!(paused.contains("PAUSED"));
    state.event(&event("192.0.2.99", 1000));
    state.sample(NOW + 2000, stats(9999, 99_999, 999), vec![]);
    assert_eq!(frame(&state, 120, 40), paused);
    state.press(Key::Pause);
    state.sample(NOW + 3000, stats(9999, 99_999, 999), vec![]);
    assert_ne!(frame(&state, 120, 40), paused);
}

#[test]
fn keys() {
    let mut state = State::default();
    for (key, pane) in
        [(Key::Next, 1), (Key::Previous, 0), (Key::Previous, 3), (Key::Next, 0), (Key::Pane(2), 2), (Key::Pane(9), 3)]
    {
        state.press(key);
        assert_eq!(state.pane, pane);
    }
    state.press(Key::Help);
    assert!(frame(&state, 80, 24).contains("quit"));
    state.press(Key::Escape);
    assert!(!state.help);
}

#[test]
fn another_guard_s_counters_make_no_rate() {
    let mut state = state();
    let mut other = stats(5, 1, 1);
    other.started_unix_ms = NOW;
    state.gone("no guard answers");
    assert!(frame(&state, 120, 40).contains("no guard answers: asking again"));
    state.sample(NOW + 2000, other, vec![]);
    assert_eq!(state.sum(Action::Drop), (0.0, 4));
    assert!(!frame(&state, 120, 40).contains("asking again"));
    assert!(state.peers.iter().all(|peer| peer.rate == 0.0));
}

#[test]
fn sources_are_bounded_and_fade() {
    let mut state = state();
    for host in 0..SOURCES_MAX as u32 + 500 {
        state.event(&event(&Ipv4Addr::from(0x0a00_0000 + host).to_string(), 1));
    }
    assert_eq!(state.sources.len(), SOURCES_MAX);
    assert!(state.sources.contains_key(&"198.51.100.7".parse().unwrap()), "the heaviest stays");
    for second in 2..200 {
        state.sample(NOW + second * 1000, stats(1250, 12_845, 30), vec![]);
    }
    assert!(state.sources.is_empty());
}
