//! The guard's own metrics: one text from one [`Vitals`].
//!
//! Names are a contract (`docs/guide/guard-alone.md`). Labels come from closed enums and bounded tables (lists, ports, rows), never from what a
//! stranger sends: there is no series per address.

use super::guard::Vitals;
use crate::protocol::ListInfo;
use kernel_shared::control::Mode;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::Registry,
};
use std::{collections::BTreeMap, fmt, time::Duration};

/// Content type of [`plain`].
pub const CONTENT_TYPE_PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Content type of [`encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Lowest power of two shown in a latency histogram: all below 2^10 ns (1 µs) is one bucket.
const LATENCY_SHOWN_FIRST: usize = 10;
/// Highest one: all from 2^32 ns (4.3 s) on is `+Inf`.
const LATENCY_SHOWN_LAST: usize = 31;
/// Powers of two in a bucket of the guard's histograms.
const LATENCY_STEP: usize = 1;
/// And of a row's.
const ROW_LATENCY_STEP: usize = 2;
/// How an interface can be filtered.
const XDP_MODES: [&str; 4] = ["native", "generic", "tcx", "none"];

/// What this process costs, read from `/proc/self`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process {
    /// User and system time together.
    pub cpu: Duration,
    /// Memory in use, bytes.
    pub resident_bytes: u64,
    /// Threads.
    pub threads: u64,
    /// Open descriptors.
    pub descriptors: u64,
}

impl Process {
    /// Reads them; what can't be read is 0.
    pub fn read() -> Process {
        let field = |fields: &[&str], index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The name in parentheses may hold spaces: fields are counted from behind it (state is the first, proc(5) calls it the third).
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages: Vec<&str> = statm.split_whitespace().collect();
        // SAFETY: sysconf with a constant.
        let (tick, page) = unsafe { (libc::sysconf(libc::_SC_CLK_TCK), libc::sysconf(libc::_SC_PAGESIZE)) };
        Process {
            cpu: Duration::from_secs_f64((field(&fields, 11) + field(&fields, 12)) as f64 / tick.max(1) as f64),
            resident_bytes: field(&pages, 1) * page.max(0) as u64,
            threads: field(&fields, 17),
            descriptors: std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
        }
    }
}

#[derive(Debug)]
struct Page {
    vitals: Vitals,
    process: Process,
}

/// The text of a scrape.
pub fn encode(vitals: Vitals, process: Process) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Page { vitals, process }));
    let mut page = String::new();
    text::encode(&mut page, &registry)?;
    Ok(page)
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let encoder = &mut encoder;
        self.identity(encoder)?;
        self.packets(encoder)?;
        self.extras(encoder)?;
        self.tables(encoder)?;
        self.lists(encoder)?;
        self.stack(encoder)?;
        self.latency(encoder)?;
        self.process(encoder)
    }
}

type Encoder<'a, 'b> = &'a mut DescriptorEncoder<'b>;

impl Page {
    fn identity(&self, encoder: Encoder) -> fmt::Result {
        let stats = &self.vitals.stats;
        let labels = [
            ("version", env!("CARGO_PKG_VERSION")),
            ("instance", stats.instance.as_str()),
            ("interface", stats.interface.as_str()),
            ("abi", stats.abi_hash.as_str()),
        ];
        let mut info = encoder.encode_descriptor("ebpf_guard", "This guard", None, MetricType::Info)?;
        info.encode_info(&labels)?;
        let modes = Mode::ALL.into_iter().map(|mode| (mode.as_str(), u64::from(mode.as_str() == stats.mode)));
        gauges(encoder, "ebpf_guard_mode", "1 for the mode in force, 0 for the others", "mode", modes)?;
        let modes = XDP_MODES.into_iter().map(|mode| (mode, u64::from(mode == stats.xdp_mode)));
        gauges(encoder, "ebpf_guard_xdp_mode", "1 for the way the filter is attached, 0 for the others", "mode", modes)?;
        let trial = u64::from(self.vitals.trial);
        gauge(encoder, "ebpf_guard_trial", "1 while enforce runs on trial: it ends by itself unless confirmed", trial)?;
        let adopted = u64::from(stats.adopted);
        gauge(encoder, "ebpf_guard_adopted", "1 if this process took over the maps and the link of an earlier one", adopted)?;
        if let Some(age) = stats.heartbeat_age_ms {
            let mut metric = encoder.encode_descriptor(
                "ebpf_guard_heartbeat_age_seconds",
                "Time since the node's last heartbeat; absent until the first",
                None,
                MetricType::Gauge,
            )?;
            metric.encode_gauge(&(age as f64 / 1e3))?;
        }
        Ok(())
    }

    fn packets(&self, encoder: Encoder) -> fmt::Result {
        let ended = self.vitals.ended.iter().map(|(reason, count)| {
            let action = if reason.is_drop() { "drop" } else { "pass" };
            (reason.as_str(), action, *count)
        });
        let would = self.vitals.would_drop.iter().map(|(reason, count)| (reason.as_str(), "would_drop", *count));
        let all: Vec<_> = ended.chain(would).collect();
        let help = "Packets judged, by reason; would_drop counts packets that shadow mode let pass, which are in pass as well";
        let mut metric = encoder.encode_descriptor("ebpf_guard_packets", help, None, MetricType::Counter)?;
        for (reason, action, count) in &all {
            let labels = [("reason", *reason), ("action", *action)];
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count.packets, None)?;
        }
        let help = "Bytes of whole frames judged, by reason; would_drop as for packets";
        let mut metric = encoder.encode_descriptor("ebpf_guard_bytes", help, None, MetricType::Counter)?;
        for (reason, action, count) in &all {
            let labels = [("reason", *reason), ("action", *action)];
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count.bytes, None)?;
        }
        let stats = &self.vitals.stats;
        counter(encoder, "ebpf_guard_events_lost", "Sampled drops that found the event ring full", stats.events_lost)?;
        counter(encoder, "ebpf_guard_events_unread", "Event lines that a subscriber had no room for", stats.events_unread)
    }

    fn extras(&self, encoder: Encoder) -> fmt::Result {
        let stats = &self.vitals.stats;
        let cookies =
            [("sent", stats.syn_cookies_sent), ("valid", stats.syn_cookies_valid), ("invalid", stats.syn_cookies_invalid)];
        let help = "SYN proxy: cookies sent, and ACKs that brought a valid or an invalid one";
        let mut metric = encoder.encode_descriptor("ebpf_guard_syn_cookies", help, None, MetricType::Counter)?;
        for (state, count) in cookies {
            metric.encode_family(&[("state", state)])?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        let Some(egress) = &stats.egress else { return Ok(()) };
        let help = "Dials of the node into special ranges; absent without the egress guard";
        let mut metric = encoder.encode_descriptor("ebpf_guard_egress_dials", help, None, MetricType::Counter)?;
        for (range, count) in &egress.ranges {
            for (action, count) in [("deny", count.denied), ("would_deny", count.would_deny)] {
                let labels = [("range", range.as_str()), ("action", action)];
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
        Ok(())
    }

    fn tables(&self, encoder: Encoder) -> fmt::Result {
        let vitals = &self.vitals;
        let bans = vitals.bans.iter().map(|(offence, count)| (offence.as_str(), *count));
        gauges(encoder, "ebpf_guard_bans", "Bans in force, by offence", "offence", bans)?;
        let flows = vitals.flows.iter().map(|(class, count)| (class.as_str(), *count));
        gauges(encoder, "ebpf_guard_flows", "Flows announced, by class", "class", flows)?;
        let rates = vitals.budgets.iter().map(|budget| (budget.name.as_str(), budget.rate as u64));
        let help = "Budgets of strangers, and what validators share: packets a second";
        gauges(encoder, "ebpf_guard_budget_packets_per_second", help, "budget", rates)?;
        let bursts = vitals.budgets.iter().map(|budget| (budget.name.as_str(), budget.burst as u64));
        let help = "Budgets of strangers, and what validators share: packets at once; 0 is no limit";
        gauges(encoder, "ebpf_guard_budget_burst_packets", help, "budget", bursts)?;
        let shares = vitals.stats.shares;
        let help = "What validators' flows are guaranteed by stake: all together, and the least of them; absent without a limit";
        let rates = [("all", shares.rate), ("least", shares.least)];
        let rates = rates.into_iter().filter_map(|(share, rate)| Some((share, u64::from(rate?))));
        gauges(encoder, "ebpf_guard_share_packets_per_second", help, "share", rates)
    }

    fn lists(&self, encoder: Encoder) -> fmt::Result {
        let lists = || self.vitals.lists.iter();
        let of = |value: fn(&ListInfo) -> f64| lists().map(move |list| ("list", list.name.as_str(), value(list)));
        let help = "Prefixes of a list, as they were read";
        family(encoder, "ebpf_guard_list_prefixes", help, MetricType::Gauge, of(|list| list.prefixes as f64))?;
        let help = "Packets that met a list of this name, over all its readings";
        family(encoder, "ebpf_guard_list_hits", help, MetricType::Counter, of(|list| list.hits as f64))?;
        let help = "Lines that were left out of a list, because they were no prefix";
        family(encoder, "ebpf_guard_list_skipped_lines", help, MetricType::Gauge, of(|list| list.skipped as f64))?;
        let help = "Kernel memory of a list";
        family(encoder, "ebpf_guard_list_memory_bytes", help, MetricType::Gauge, of(|list| list.bytes as f64))?;
        let help = "When a list was loaded, since the epoch: its age is time() less this";
        let loaded = of(|list| list.since_unix_ms as f64 / 1e3);
        family(encoder, "ebpf_guard_list_loaded_timestamp_seconds", help, MetricType::Gauge, loaded)?;
        let help = "When a list ends, since the epoch";
        let ends = of(|list| list.until_unix_ms as f64 / 1e3);
        family(encoder, "ebpf_guard_list_expiry_timestamp_seconds", help, MetricType::Gauge, ends)
    }

    /// What the kernel's own stack does behind the guard.
    fn stack(&self, encoder: Encoder) -> fmt::Result {
        let vitals = &self.vitals;
        let attached = vitals.probes.iter().map(|(name, attached)| (name.as_str(), u64::from(*attached)));
        let help =
            "1 if a probe or the egress guard is attached, 0 if refused or without its control group; absent if nobody asked";
        gauges(encoder, "ebpf_guard_probe_attached", help, "probe", attached)?;
        let help = "Packets on protected ports that passed the guard and were dropped by the kernel's stack; a reason appears with its first";
        let mut metric = encoder.encode_descriptor("ebpf_guard_kernel_drops", help, None, MetricType::Counter)?;
        for ((reason, port), count) in &vitals.kernel_drops {
            let labels = [("reason", reason.as_str()), ("port", port.as_str())];
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(count, None)?;
        }
        let Some(tcp) = vitals.tcp else { return Ok(()) };
        let help = "Segments sent again on TCP connections of the control group; absent without one";
        counter(encoder, "ebpf_guard_tcp_retransmits", help, tcp.retransmits)?;
        counter(encoder, "ebpf_guard_tcp_timeouts", "Retransmission timeouts there", tcp.timeouts)?;
        counter(encoder, "ebpf_guard_tcp_rtt_samples", "Round-trip samples there", tcp.samples)?;
        let help = "Sum of the smoothed round trips at those samples: over their number, the mean";
        let mut metric = encoder.encode_descriptor("ebpf_guard_tcp_rtt_seconds", help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&(tcp.rtt_us as f64 / 1e6), None)
    }

    fn latency(&self, encoder: Encoder) -> fmt::Result {
        let stats = &self.vitals.stats;
        let help = "Arrival of a packet in XDP until its reader has it (sampled); the sum takes each sample at its bucket's middle";
        let mut metric = encoder.encode_descriptor("ebpf_guard_packet_latency_seconds", help, None, MetricType::Histogram)?;
        for (protocol, info) in [("tcp", &stats.latency_tcp), ("udp", &stats.latency_udp)] {
            let (sum, shown) = histogram(&info.buckets, LATENCY_STEP);
            let labels = [("protocol", protocol)];
            let mut family = metric.encode_family(&labels)?;
            family.encode_histogram::<NoLabelSet>(sum, info.count, &shown, None)?;
        }
        let help = "The same of the busiest rows' packets, at most 16; `ebpf-guard peers` tells whose a row is";
        let mut metric = encoder.encode_descriptor("ebpf_guard_row_latency_seconds", help, None, MetricType::Histogram)?;
        for (row, buckets) in &self.vitals.rows {
            let (sum, shown) = histogram(buckets, ROW_LATENCY_STEP);
            let labels = [("row", row.to_string())];
            let mut family = metric.encode_family(&labels)?;
            family.encode_histogram::<NoLabelSet>(sum, buckets.iter().sum(), &shown, None)?;
        }
        counter(encoder, "ebpf_guard_latency_stamped", "Packets stamped for their latency", stats.latency_stamped)?;
        counter(encoder, "ebpf_guard_latency_lapsed", "Stamps that nobody read in time", stats.latency_lapsed)
    }

    fn process(&self, encoder: Encoder) -> fmt::Result {
        let process = &self.process;
        let help = "User and system time of this process";
        let mut metric = encoder.encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&process.cpu.as_secs_f64(), None)?;
        gauge(encoder, "process_resident_memory_bytes", "Memory in use", process.resident_bytes)?;
        gauge(encoder, "process_threads", "Threads", process.threads)?;
        gauge(encoder, "process_open_fds", "Open descriptors", process.descriptors)?;
        let help = "When this process started, since the epoch";
        let mut metric = encoder.encode_descriptor("process_start_time_seconds", help, None, MetricType::Gauge)?;
        metric.encode_gauge(&(self.vitals.stats.started_unix_ms as f64 / 1e3))
    }
}

/// Sum in seconds, and (upper bound in seconds, samples) a bucket; a bucket holds `step` of the kernel's.
fn histogram(buckets: &[u64], step: usize) -> (f64, Vec<(f64, u64)>) {
    let counted = |from: usize, to: usize| buckets.iter().skip(from).take(to - from).sum();
    let seconds = |power: usize| 2f64.powi(power as i32) / 1e9;
    let sum = buckets.iter().enumerate().map(|(bucket, count)| *count as f64 * 1.5 * seconds(bucket)).sum();
    let mut shown = vec![(seconds(LATENCY_SHOWN_FIRST), counted(0, LATENCY_SHOWN_FIRST))];
    let bounds = (LATENCY_SHOWN_FIRST..=LATENCY_SHOWN_LAST).step_by(step);
    shown.extend(bounds.map(|bucket| (seconds(bucket + step), counted(bucket, bucket + step))));
    shown.push((f64::INFINITY, buckets.iter().skip(LATENCY_SHOWN_LAST + 1).sum()));
    (sum, shown)
}

/// The same text in the format that came before OpenMetrics (`text/plain; version=0.0.4`): a counter's family is called as its samples are,
/// there is no kind `info`, and no end mark.
pub fn plain(page: &str) -> String {
    let mut text = String::with_capacity(page.len());
    let families: BTreeMap<&str, &str> = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    for line in page.lines().filter(|line| *line != "# EOF" && !line.starts_with("# UNIT ")) {
        let head = ["# HELP ", "# TYPE "].into_iter().find_map(|head| Some((head, line.strip_prefix(head)?.split_once(' ')?)));
        if let Some((head, (name, rest))) = head {
            let kind = families.get(name).copied().unwrap_or_default();
            let suffix = match kind {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            let rest = if head == "# TYPE " && kind == "info" { "gauge" } else { rest };
            text.extend([head, name, suffix, " ", rest, "\n"]);
        } else {
            text.extend([line, "\n"]);
        }
    }
    text
}

fn counter(encoder: Encoder, name: &str, help: &str, value: u64) -> fmt::Result {
    encoder.encode_descriptor(name, help, None, MetricType::Counter)?.encode_counter::<NoLabelSet, _, u64>(&value, None)
}

fn gauge(encoder: Encoder, name: &str, help: &str, value: u64) -> fmt::Result {
    encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
}

fn gauges<'a>(encoder: Encoder, name: &str, help: &str, label: &str, values: impl Iterator<Item = (&'a str, u64)>) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (value, count) in values {
        metric.encode_family(&[(label, value)])?.encode_gauge(&count)?;
    }
    Ok(())
}

/// A family with one label.
fn family<'a>(
    encoder: Encoder,
    name: &str,
    help: &str,
    kind: MetricType,
    samples: impl Iterator<Item = (&'static str, &'a str, f64)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
    for (label, value, sample) in samples {
        let labels = [(label, value)];
        let mut series = metric.encode_family(&labels)?;
        match kind {
            MetricType::Counter => series.encode_counter::<NoLabelSet, _, u64>(&sample, None)?,
            _ => series.encode_gauge(&sample)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_keeps_every_sample() {
        let buckets: Vec<u64> = (0..64).map(|bucket| bucket + 1).collect();
        for step in [LATENCY_STEP, ROW_LATENCY_STEP] {
            let (sum, shown) = histogram(&buckets, step);
            assert_eq!(shown.iter().map(|(_, count)| count).sum::<u64>(), (1..=64).sum::<u64>());
            assert_eq!(shown.len(), (LATENCY_SHOWN_LAST - LATENCY_SHOWN_FIRST + 1) / step + 2);
            assert!(shown.windows(2).all(|pair| pair[0].0 < pair[1].0) && sum > 0.0);
            assert_eq!(histogram(&[], step).0, 0.0);
        }
    }

    #[test]
    fn the_older_format_calls_families_as_their_samples() {
        let page = "# HELP a Counts.\n# TYPE a counter\na_total 3\n# HELP b A gauge.\n# TYPE b gauge\nb{c=\"# TYPE b x\"} 1\n\
                    # HELP d Names.\n# TYPE d info\nd_info{e=\"f\"} 1\n# EOF\n";
        let expect = "# HELP a_total Counts.\n# TYPE a_total counter\na_total 3\n# HELP b A gauge.\n# TYPE b gauge\n\
                      b{c=\"# TYPE b x\"} 1\n# HELP d_info Names.\n# TYPE d_info gauge\nd_info{e=\"f\"} 1\n";
        assert_eq!(plain(page), expect);
    }

    #[test]
    fn this_process_costs_something() {
        let process = Process::read();
        assert!(process.resident_bytes > 100_000 && process.threads >= 1 && process.descriptors >= 3, "{process:?}");
    }
}
