//! The metrics endpoint: what it says, to whom, and who can't hold it up.

use crate::{
    egress::Group,
    support::{Lab, MARKER4, PATIENCE, SERVER4, SUSPECT4, skip, until},
};
use kernel_shared::Reason;
use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
};

/// Where the guard is scraped.
pub const METRICS: &str = "127.0.0.1:9465";
pub const SCRAPE: &str = "GET /metrics HTTP/1.1\r\nHost: guard\r\n\r\n";

impl Lab {
    /// One HTTP request inside: status line, head, body.
    pub fn http(&self, request: &str) -> (String, String, String) {
        let mut stream = self.inside.inside(|| TcpStream::connect(METRICS).unwrap());
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let (status, head) = head.split_once("\r\n").unwrap_or((head, ""));
        (status.to_string(), head.to_ascii_lowercase(), body.to_string())
    }
}

/// A sample's value.
pub fn sample(page: &str, series: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{page}")).parse().unwrap()
}

#[test]
fn a_scrape_over_http_has_every_reason_and_nobody_s_address() {
    let Some(lab) = Lab::new("a_scrape_over_http_has_every_reason_and_nobody_s_address") else { return };
    lab.write("'tcp/9000', 'udp/9000'", &format!("mode = 'enforce'\nmetrics = '{METRICS}'\n"));
    let guard = lab.launch(lab.by_file());
    guard.ban(SUSPECT4, 600_000, types::Offence::Replay);
    assert_eq!(lab.line4().send(3), 0);
    let (status, head, page) = lab.http(
        "GET /metrics HTTP/1.1\r\nHost: guard\r\nAccept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n\r\n",
    );
    assert!(status.ends_with("200 OK") && head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    assert_eq!(sample(&page, r#"ebpf_guard_packets_total{reason="banned_replay",action="drop"}"#), 3.0);
    assert!(sample(&page, r#"ebpf_guard_bytes_total{reason="banned_replay",action="drop"}"#) > 3.0 * 42.0);
    assert_eq!(sample(&page, r#"ebpf_guard_packets_total{reason="stranger",action="pass"}"#), 1.0);
    for reason in Reason::ALL {
        let action = if reason.is_drop() { "drop" } else { "pass" };
        sample(&page, &format!(r#"ebpf_guard_packets_total{{reason="{}",action="{action}"}}"#, reason.as_str()));
        if reason.is_drop() {
            sample(&page, &format!(r#"ebpf_guard_packets_total{{reason="{}",action="would_drop"}}"#, reason.as_str()));
        }
    }
    assert_eq!(sample(&page, r#"ebpf_guard_bans{offence="replay"}"#), 1.0);
    assert_eq!(sample(&page, r#"ebpf_guard_flows{class="known"}"#), 0.0);
    assert_eq!(sample(&page, r#"ebpf_guard_mode{mode="enforce"}"#), 1.0);
    assert_eq!(sample(&page, r#"ebpf_guard_mode{mode="shadow"}"#), 0.0);
    assert_eq!(sample(&page, r#"ebpf_guard_xdp_mode{mode="native"}"#), 1.0);
    assert_eq!(sample(&page, r#"ebpf_guard_budget_burst_packets{budget="syn_source"}"#), 200.0);
    assert!(sample(&page, "process_resident_memory_bytes") > 0.0);
    assert!(!page.contains(SUSPECT4), "no series per source");
    well_formed(&page);
    let (status, head, _) = lab.http("POST /metrics HTTP/1.1\r\nHost: guard\r\nContent-Length: 0\r\n\r\n");
    assert!(status.contains("405") && head.contains("allow: get, head"), "{status} {head}");
    assert!(lab.http("GET /etc/passwd HTTP/1.1\r\nHost: guard\r\n\r\n").0.contains("404"));
    let (_, head, plain) = lab.http(SCRAPE);
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert_eq!(series(&plain), series(&page));
    promtool(&plain);
    // What has no limit has no figure.
    guard.ask(&crate::support::flow("10.77.0.50", 4050, guard::FlowKind::Floor, "validator"));
    assert!(sample(&lab.http(SCRAPE).2, r#"ebpf_guard_share_packets_per_second{share="least"}"#) > 0.0);
    guard.ask(&guard::Request::Budget { name: "validators".into(), rate: 0, burst: 0, for_ms: None });
    let page = lab.http(SCRAPE).2;
    assert!(!page.contains("ebpf_guard_share_packets_per_second{"), "{page}");
    promtool(&page);
}

/// Every sample has a HELP and a TYPE before it, a value, and a name and suffix that fit its type; no series comes twice.
fn well_formed(page: &str) {
    assert!(page.ends_with("# EOF\n"));
    let mut types = std::collections::BTreeMap::new();
    let mut helped = std::collections::BTreeSet::new();
    let mut seen = std::collections::BTreeSet::new();
    for line in page.lines().filter(|line| *line != "# EOF") {
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.splitn(3, ' ');
            match (words.next(), words.next(), words.next()) {
                (Some("HELP"), Some(name), Some(text)) if !text.is_empty() => assert!(helped.insert(name), "{name} twice"),
                (Some("TYPE"), Some(name), Some(kind)) => assert_eq!(types.insert(name, kind), None, "{name} twice"),
                other => panic!("{other:?}"),
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok() && seen.insert(series), "{line}");
        let name = series.split('{').next().unwrap();
        let fits = |suffixes: &[&str], kind: &str| {
            suffixes
                .iter()
                .any(|suffix| name.strip_suffix(suffix).is_some_and(|base| types.get(base) == Some(&kind) && helped.contains(base)))
        };
        let known = fits(&["_total"], "counter") || fits(&[""], "gauge") || fits(&["_info"], "info");
        assert!(known || fits(&["_bucket", "_sum", "_count"], "histogram"), "{line}");
    }
}

/// Names and labels of all samples.
fn series(page: &str) -> Vec<&str> {
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    samples.filter_map(|line| Some(line.rsplit_once(' ')?.0)).collect()
}

/// Prometheus' own opinion, where its tool is installed.
fn promtool(page: &str) {
    let mut command = Command::new("promtool");
    let child = command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    match child {
        Ok(mut child) => {
            child.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            let said = [output.stdout, output.stderr].concat();
            assert!(output.status.success() && said.is_empty(), "{}\n{page}", String::from_utf8_lossy(&said));
        }
        Err(error) => skip("promtool check metrics", &error.to_string()),
    }
}

#[test]
fn a_scrape_tells_of_lists_probes_rows_and_the_stack_behind() {
    let Some(group) = Group::new("a_scrape_tells_of_lists_probes_rows_and_the_stack_behind") else { return };
    let lab = &group.lab;
    let feed = lab.folder.path().join("feed.txt");
    fs::write(&feed, format!("{SUSPECT4}\n192.0.2.0/24\nnonsense\n")).unwrap();
    let (metrics, cgroup) = (format!("metrics = '{METRICS}'"), format!("cgroup = '{}'", group.path.display()));
    let ban_file = format!("[[ban_files]]\npath = '{}'\nas = 'list'", feed.display());
    let keys = format!("mode = 'enforce'\nlatency_shift = 0\n{metrics}\n{cgroup}\n{ban_file}\n");
    lab.write("'tcp/9000', 'udp/9000', 'udp/9001'", &keys);
    let guard = lab.launch(lab.by_file());
    let mut line = lab.line4();
    assert_eq!(line.send(3), 0);
    guard.ask(&crate::support::flow(MARKER4, 4001, guard::FlowKind::Known, "a secret name"));
    assert_eq!(line.send(1), 0);
    // Nobody listens on 9001.
    let sender = lab.outside.udp((crate::support::ip(MARKER4), 4002));
    sender.send_to(b"anybody?", (SERVER4, 9001)).unwrap();
    let missing = |name: &str| guard.stats().probes.get(name).is_none_or(|line| line.starts_with("none"));
    let page = until("the kernel's drop", || {
        let page = lab.http(SCRAPE).2;
        (missing("kernel_drops") || page.contains("ebpf_guard_kernel_drops_total{")).then_some(page)
    });
    let list = |name: &str| sample(&page, &format!(r#"ebpf_guard_list_{name}{{list="feed"}}"#));
    assert_eq!((list("prefixes"), list("hits_total"), list("skipped_lines")), (2.0, 4.0, 1.0));
    assert!(list("memory_bytes") > 500_000.0);
    let (loaded, expiry) = (list("loaded_timestamp_seconds"), list("expiry_timestamp_seconds"));
    let now = guard::kernel::clock::unix_ms() as f64 / 1e3;
    assert!(loaded <= now && loaded > now - 600.0 && (expiry - loaded - 86_400.0).abs() < 600.0, "{loaded} {expiry} {now}");
    for probe in ["kernel_drops", "tcp_truth", "latency_tcp", "latency_udp"] {
        let attached = sample(&page, &format!(r#"ebpf_guard_probe_attached{{probe="{probe}"}}"#));
        assert!(attached == 1.0 || (attached == 0.0 && (probe.starts_with("latency") || missing(probe))), "{probe}: {attached}");
    }
    if !missing("kernel_drops") {
        assert_eq!(sample(&page, r#"ebpf_guard_kernel_drops_total{reason="NO_SOCKET",port="udp/9001"}"#), 1.0);
    }
    if !missing("tcp_truth") {
        assert_eq!(sample(&page, "ebpf_guard_tcp_retransmits_total"), 0.0);
        assert_eq!(sample(&page, "ebpf_guard_tcp_rtt_samples_total"), 0.0);
    }
    let row = guard.stats().rows[0].row;
    sample(&page, &format!(r#"ebpf_guard_row_latency_seconds_count{{row="{row}"}}"#));
    assert!(!page.contains("a secret name") && !page.contains(MARKER4), "no label from a peer or an address");
    promtool(&page);
    lab.detach();
}

#[test]
fn a_scrape_shows_the_busiest_rows_and_no_more() {
    let Some(lab) = Lab::new("a_scrape_shows_the_busiest_rows_and_no_more") else { return };
    lab.write("'udp/9000'", &format!("metrics = '{METRICS}'\n"));
    let guard = lab.launch(lab.by_file());
    for peer in 0..40 {
        guard.ask(&crate::support::flow("192.0.2.1", 5000 + peer, guard::FlowKind::Known, &format!("peer {peer}")));
    }
    guard.ask(&crate::support::flow(SUSPECT4, 4000, guard::FlowKind::Known, "busy"));
    assert_eq!(lab.line4().send(5), 5);
    let page = lab.http(SCRAPE).2;
    let shown: Vec<&str> = series(&page).into_iter().filter(|series| series.contains("row_latency_seconds_count")).collect();
    let busy = guard.stats().rows.into_iter().find(|row| row.label == "busy").unwrap().row;
    assert_eq!(shown.len(), guard::kernel::guard::ROWS_SHOWN_MAX);
    assert!(shown.contains(&format!(r#"ebpf_guard_row_latency_seconds_count{{row="{busy}"}}"#).as_str()), "{shown:?}");
    lab.detach();
}

#[test]
fn a_slow_or_greedy_scraper_keeps_nobody_out() {
    let Some(lab) = Lab::new("a_slow_or_greedy_scraper_keeps_nobody_out") else { return };
    lab.write("'tcp/9000', 'udp/9000'", &format!("metrics = '{METRICS}'\n"));
    let guard = lab.launch(lab.by_file());
    let limit = guard::kernel::scrape::CONNECTIONS_MAX;
    let silent: Vec<TcpStream> = (0..limit).map(|_| lab.inside.inside(|| TcpStream::connect(METRICS).unwrap())).collect();
    let mut further = lab.inside.inside(|| TcpStream::connect(METRICS).unwrap());
    further.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(further.read(&mut [0; 16]).unwrap_or(0), 0, "one more than there is room for is closed at once");
    assert_eq!(guard.stats().mode, "shadow", "the guard's own socket doesn't care");
    drop(silent);
    until("room for the next scrape", || {
        let mut stream = lab.inside.inside(|| TcpStream::connect(METRICS).unwrap());
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = String::new();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: guard\r\n\r\n").ok()?;
        stream.read_to_string(&mut answer).ok()?;
        answer.contains("process_threads").then_some(())
    });
}
