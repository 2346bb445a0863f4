//! `ebpf-node doctor`: what this machine lets the node do and see, and the command that mends what is missing.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use guard::{Client, ClientError};
use serde::Serialize;

/// How a finding stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// All that the node can use is there.
    Ok,
    /// Works, but slower or seeing less.
    Degraded,
    /// Not there; the node runs without.
    Missing,
}

impl Health {
    /// The label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Health::Ok => "ok",
            Health::Degraded => "degraded",
            Health::Missing => "missing",
        }
    }
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub name: String,
    /// How it stands.
    pub health: Health,
    /// What was seen.
    pub detail: String,
    /// The command or change that mends it; empty if there is nothing to mend.
    pub fix: String,
}

impl Finding {
    fn new(name: impl Into<String>, health: Health, detail: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding { name: name.into(), health, detail: detail.into(), fix: fix.into() }
    }
}

/// Looks at everything, the guard that listens at `guard_socket` among it. Takes about a second, most of it syncing a file in `data_dir`.
pub fn examine(data_dir: &Path, guard_socket: &Path) -> Vec<Finding> {
    let mut findings = vec![kernel(), btf()];
    findings.extend(interfaces());
    findings.extend([capabilities(), guard(guard_socket), cgroup2(), bpffs(), tracepoints(), disk(data_dir), clock()]);
    findings
}

/// Kernel versions: XDP links, mmapable arrays and TCX are all there from 6.6 on.
const KERNEL_FULL: (u32, u32) = (6, 6);
const KERNEL_MIN: (u32, u32) = (5, 15);

fn kernel() -> Finding {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let fix = "install a kernel ≥ 6.6 (Debian: apt-get install -t bookworm-backports linux-image-amd64)";
    match version(release) {
        Some(v) if v >= KERNEL_FULL => Finding::new("kernel", Health::Ok, release, ""),
        Some(v) if v >= KERNEL_MIN => Finding::new("kernel", Health::Degraded, format!("{release}: no TCX fallback"), fix),
        _ => Finding::new("kernel", Health::Missing, format!("{release}: too old for the guard"), fix),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn btf() -> Finding {
    match fs::metadata("/sys/kernel/btf/vmlinux") {
        Ok(file) => Finding::new("btf", Health::Ok, format!("/sys/kernel/btf/vmlinux, {} KiB", file.len() / 1024), ""),
        Err(_) => {
            let fix = "use a kernel built with CONFIG_DEBUG_INFO_BTF=y (all Debian kernels are)";
            Finding::new("btf", Health::Missing, "no /sys/kernel/btf/vmlinux: no kernel probes", fix)
        }
    }
}

/// Drivers with native XDP in mainline kernels.
const NATIVE_DRIVERS: [&str; 22] = [
    "veth",
    "tun",
    "virtio_net",
    "e1000e",
    "igb",
    "igc",
    "ixgbe",
    "ixgbevf",
    "i40e",
    "ice",
    "mlx4_en",
    "mlx5_core",
    "bnxt_en",
    "ena",
    "gve",
    "mana",
    "hv_netvsc",
    "nfp",
    "qede",
    "sfc",
    "stmmac",
    "bonding",
];

fn interfaces() -> Vec<Finding> {
    let Ok(entries) = fs::read_dir("/sys/class/net") else {
        return vec![Finding::new("xdp", Health::Missing, "can't read /sys/class/net", "mount -t sysfs sysfs /sys")];
    };
    let mut names: Vec<String> = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names.iter().map(|name| interface(name)).collect()
}

fn interface(name: &str) -> Finding {
    let title = format!("xdp {name}");
    let driver = driver(name);
    let attached = attached_mode(name);
    match (attached.as_deref(), driver.as_deref()) {
        (Some("native"), driver) => {
            Finding::new(title, Health::Ok, format!("native, attached ({})", driver.unwrap_or("no driver")), "")
        }
        (Some(mode), driver) => {
            let fix = format!("ethtool -K {name} gro-hw off lro off, then restart ebpf-guard with --xdp native");
            Finding::new(title, Health::Degraded, format!("{mode}, attached ({})", driver.unwrap_or("no driver")), fix)
        }
        (None, Some("virtio_net")) => {
            let fix = format!("ethtool -K {name} gro-hw off lro off (where the host fixes it on, generic XDP is used)");
            Finding::new(title, Health::Degraded, "virtio_net: native if the host lets hardware GRO be switched off", fix)
        }
        (None, Some(driver)) if NATIVE_DRIVERS.contains(&driver) => {
            Finding::new(title, Health::Ok, format!("native ({driver})"), "")
        }
        (None, _) => {
            let what = driver.unwrap_or_else(|| "no driver".into());
            Finding::new(title, Health::Degraded, format!("generic ({what})"), "use a network card whose driver has native XDP")
        }
    }
}

fn driver(name: &str) -> Option<String> {
    if let Ok(link) = fs::read_link(format!("/sys/class/net/{name}/device/driver")) {
        return link.file_name().map(|file| file.to_string_lossy().into_owned());
    }
    let output = std::process::Command::new("ip").args(["-j", "-d", "link", "show", "dev", name]).output().ok()?;
    let links: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    links[0]["linkinfo"]["info_kind"].as_str().map(str::to_owned)
}

fn attached_mode(name: &str) -> Option<String> {
    let output = std::process::Command::new("ip").args(["-j", "-d", "link", "show", "dev", name]).output().ok()?;
    let links: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    // rtnetlink's XDP_ATTACHED_*: 1 driver, 2 generic, 3 offloaded, 4 several.
    match links[0]["xdp"]["mode"].as_u64()? {
        1 => Some("native".into()),
        2 => Some("generic".into()),
        3 => Some("offloaded".into()),
        _ => Some("several programs".into()),
    }
}

const CAP_NET_ADMIN: u32 = 12;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

fn capabilities() -> Finding {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    let (effective, bounding) = (set("CapEff:").unwrap_or(0), set("CapBnd:").unwrap_or(0));
    let needed = (1u64 << CAP_NET_ADMIN) | (1 << CAP_PERFMON) | (1 << CAP_BPF);
    let detail = format!("effective {effective:#x}; ebpf-guard needs cap_bpf, cap_net_admin, cap_perfmon; ebpf-node needs none");
    if bounding & needed != needed {
        let fix = "give the container or unit CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (CapabilityBoundingSet=)";
        return Finding::new(
            "capabilities",
            Health::Missing,
            format!("bounding set {bounding:#x} lacks what ebpf-guard needs"),
            fix,
        );
    }
    if effective & needed == needed {
        return Finding::new("capabilities", Health::Ok, detail, "");
    }
    let fix = "run the guard as root, or: setcap cap_bpf,cap_net_admin,cap_perfmon+ep $(command -v ebpf-guard)";
    Finding::new("capabilities", Health::Degraded, detail, fix)
}

/// The running guard, by its own words: they tell TCX, too, which an interface does not show.
fn guard(socket: &Path) -> Finding {
    let asked = Client::connect(socket).and_then(|mut client| client.stats(false));
    match asked {
        Ok(stats) => filter(&stats.mode, &stats.xdp_mode, &stats.interface),
        Err(ClientError::Connect { path, source }) if source.kind() == std::io::ErrorKind::PermissionDenied => {
            let fix = "ebpf-guard run --allow-uid \"$(id -u)\" (allow_uid in guard.toml)";
            Finding::new("guard", Health::Degraded, format!("{path} is not ours to read"), fix)
        }
        Err(ClientError::Connect { path, source }) => {
            let detail = format!("no guard at {path} ({source}): no packet is filtered unless an earlier one left its filter");
            Finding::new("guard", Health::Missing, detail, "systemctl enable --now ebpf-guard (docs/guide/guard-alone.md)")
        }
        Err(error) => {
            let fix = "install ebpf-guard and ebpf-node of the same release, and restart both";
            Finding::new("guard", Health::Degraded, format!("a guard is there, but does not answer as it should: {error}"), fix)
        }
    }
}

fn filter(mode: &str, way: &str, interface: &str) -> Finding {
    let detail = format!("{mode}, {way} on {interface}");
    match (mode, way) {
        (_, "none") => Finding::new(
            "guard",
            Health::Missing,
            format!("{detail}: the interface takes no program"),
            "protect another interface (interface in guard.toml); the guard's log says what the kernel refused",
        ),
        ("enforce", "native") => Finding::new("guard", Health::Ok, detail, ""),
        ("enforce", _) => {
            let fix = "see the interface's line above; once native XDP is to be had: ebpf-guard detach, and start the guard again";
            Finding::new("guard", Health::Degraded, format!("{detail}: dropped later, at a higher cost"), fix)
        }
        _ => Finding::new(
            "guard",
            Health::Degraded,
            format!("{detail}: nothing is dropped"),
            "ebpf-guard enforce --for 60s, and, if all went well, ebpf-guard confirm",
        ),
    }
}

fn mounted(kind: &str) -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (target, fstype) = (fields.next()?, fields.next()?);
        (fstype == kind).then(|| target.to_owned())
    })
}

fn cgroup2() -> Finding {
    match mounted("cgroup2") {
        Some(target) => Finding::new("cgroup2", Health::Ok, target, ""),
        None => {
            let fix = "mkdir -p /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup";
            Finding::new("cgroup2", Health::Missing, "not mounted: no per-connection TCP figures, no egress guard", fix)
        }
    }
}

fn bpffs() -> Finding {
    match mounted("bpf") {
        Some(target) => Finding::new("bpffs", Health::Ok, target, ""),
        None => {
            let fix = "mount -t bpf bpf /sys/fs/bpf";
            Finding::new("bpffs", Health::Degraded, "not mounted; ebpf-guard mounts it when it starts", fix)
        }
    }
}

fn tracepoints() -> Finding {
    if mounted("tracefs").is_some_and(|target| fs::read_dir(format!("{target}/events")).is_ok()) {
        return Finding::new("tracepoints", Health::Ok, "tracefs readable; BTF tracepoints need none of it", "");
    }
    let fix = "mount -t tracefs tracefs /sys/kernel/tracing (readable by root)";
    let detail = "tracefs is not readable here; BTF tracepoints work without it, classic ones do not";
    Finding::new("tracepoints", Health::Degraded, detail, fix)
}

const SYNC_ROUNDS: usize = 100;
const SYNC_BYTES: usize = 4_096;
/// A vote waits for one sync: above this, finality is the disk's.
const SYNC_P99_OK: Duration = Duration::from_millis(10);

fn disk(data_dir: &Path) -> Finding {
    match sync_times(data_dir) {
        Ok(mut times) => {
            times.sort();
            let (p50, p99) = (times[SYNC_ROUNDS / 2], times[SYNC_ROUNDS * 99 / 100]);
            let detail = format!("fdatasync of 4 KiB in {}: p50 {:.2?}, p99 {:.2?}", data_dir.display(), p50, p99);
            if p99 <= SYNC_P99_OK {
                return Finding::new("disk", Health::Ok, detail, "");
            }
            let fix = "put data_dir on an SSD with power-loss protection, and nothing else on it";
            Finding::new("disk", Health::Degraded, detail, fix)
        }
        Err(error) => {
            let fix = format!("mkdir -p {0} && chown ebpf-node {0}", data_dir.display());
            Finding::new("disk", Health::Missing, format!("can't write to {}: {error}", data_dir.display()), fix)
        }
    }
}

fn sync_times(directory: &Path) -> std::io::Result<Vec<Duration>> {
    let path = directory.join(format!(".doctor-{}", std::process::id()));
    let mut file = fs::OpenOptions::new().create_new(true).write(true).open(&path)?;
    let result = (0..SYNC_ROUNDS)
        .map(|_| {
            file.write_all(&[0xa5; SYNC_BYTES])?;
            let start = Instant::now();
            file.sync_data()?;
            Ok(start.elapsed())
        })
        .collect();
    fs::remove_file(&path)?;
    result
}

/// Half of the drift that a header's time may have.
const CLOCK_ERROR_MAX_US: i64 = 500_000;

fn clock() -> Finding {
    let fix = "apt-get install -y chrony && systemctl enable --now chrony";
    // SAFETY: a zeroed `timex` with modes 0 only reads.
    #[allow(unsafe_code)]
    let (state, timex) = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&mut timex), timex)
    };
    let synchronized = state >= 0 && timex.status & libc::STA_UNSYNC == 0;
    let detail = format!("estimated error {} µs, at most {} µs", timex.esterror, timex.maxerror);
    if synchronized && timex.maxerror <= CLOCK_ERROR_MAX_US {
        Finding::new("clock", Health::Ok, detail, "")
    } else if synchronized {
        Finding::new("clock", Health::Degraded, detail, fix)
    } else {
        let detail = "the kernel does not know that its clock is synchronized (a container's host may still keep it)";
        Finding::new("clock", Health::Degraded, detail, fix)
    }
}

/// The report for people: one aligned line each, the fix below what needs one.
pub fn render(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for Finding { name, health, detail, fix } in findings {
        out.push_str(&format!("{:<9} {name:<width$}  {detail}\n", health.as_str()));
        if *health != Health::Ok && !fix.is_empty() {
            out.push_str(&format!("{:>9} {:width$}  → {fix}\n", "", ""));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_that_is_not_ok_has_a_fix() {
        let home = tempfile::tempdir().unwrap();
        let findings = examine(home.path(), &home.path().join("no.sock"));
        for name in ["kernel", "btf", "capabilities", "guard", "cgroup2", "bpffs", "tracepoints", "disk", "clock"] {
            assert!(findings.iter().any(|f| f.name == name), "{name}");
        }
        assert!(findings.iter().any(|f| f.name == "xdp lo"));
        for finding in &findings {
            assert_eq!(finding.health == Health::Ok, finding.fix.is_empty(), "{finding:?}");
        }
        assert!(fs::read_dir(home.path()).unwrap().next().is_none(), "the probe file is gone");
    }

    #[test]
    fn a_guard_is_ok_if_it_drops_in_native_xdp() {
        let missing = guard(Path::new("/nonexistent/guard.sock"));
        assert!(missing.health == Health::Missing && missing.detail.contains("no guard at /nonexistent/guard.sock"), "{missing:?}");
        for (mode, way, health) in [
            ("enforce", "native", Health::Ok),
            ("enforce", "generic", Health::Degraded),
            ("enforce", "tcx", Health::Degraded),
            ("shadow", "native", Health::Degraded),
            ("off", "native", Health::Degraded),
            ("enforce", "none", Health::Missing),
        ] {
            let found = filter(mode, way, "eth0");
            assert_eq!((found.health, found.fix.is_empty()), (health, health == Health::Ok), "{found:?}");
            assert!(found.detail.starts_with(&format!("{mode}, {way} on eth0")), "{found:?}");
        }
    }

    #[test]
    fn a_directory_that_is_not_there_is_missing() {
        assert_eq!(disk(Path::new("/nonexistent/ebpf")).health, Health::Missing);
    }

    #[test]
    fn versions() {
        assert_eq!(version("6.18.2-cloud-amd64"), Some((6, 18)));
        assert_eq!(version("5.15"), Some((5, 15)));
        assert_eq!(version("x"), None);
    }
}
