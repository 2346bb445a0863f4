//! The file, the flags, and what is wrong with them.

use super::*;
use clap::Parser;
use kernel_shared::control::Mode;
use proptest::prelude::*;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    run: Run,
}

fn flags(arguments: &[&str]) -> Run {
    Cli::try_parse_from([&["run", "--config", "guard.toml"], arguments].concat()).unwrap_or_else(|error| panic!("{error}")).run
}

fn read(text: &str, arguments: &[&str]) -> Result<Settings, String> {
    Settings::of(&flags(arguments), Path::new("guard.toml"), text).map_err(|error| error.to_string())
}

const LEAST: &str = "interface = 'eth0'\nprotect = ['tcp/30303']\n";

#[test]
fn the_example_names_every_key_and_is_what_it_says() {
    let example = include_str!("../../../../../packaging/guard.toml");
    let settings = read(example, &[]).unwrap();
    assert_eq!(settings.options.mode, None);
    assert_eq!(settings.socket, Path::new(SOCKET));
    assert_eq!(settings.options.bpffs, Path::new(bpffs::DEFAULT));
    // Every key that is commented out is one that the file takes, with the value beside it.
    let whole: String = example.lines().map(|line| line.strip_prefix("#: ").unwrap_or(line)).collect::<Vec<_>>().join("\n");
    let settings = read(&whole, &[]).unwrap();
    assert_eq!(settings.options.heartbeat_timeout, HEARTBEAT_TIMEOUT);
    assert_eq!(settings.options.save_hits_every, SAVE_HITS_EVERY);
    assert_eq!(settings.options.event_shift, EVENT_SHIFT);
    assert!(settings.metrics.is_some() && !settings.ban_files.is_empty() && settings.netns.is_some());
    assert!(settings.options.egress.is_some());
    assert_eq!(settings.options.strangers.len(), kernel_shared::strangers::Budget::ALL.len());
    for (budget, value) in &settings.options.strangers {
        assert_eq!(*value, guard::kernel::budgets::default(*budget), "{}", budget.as_str());
    }
    let unknown = read(&format!("nosuch = 1\n{LEAST}"), &[]).unwrap_err();
    let (_, keys) = unknown.split_once("expected one of ").unwrap();
    for key in keys.split(',').map(|key| key.trim_matches(|c: char| !c.is_ascii_alphanumeric() && c != '_')) {
        assert!(whole.lines().any(|line| line.starts_with(&format!("{key} =")) || line.trim_matches(['[', ']']) == key), "{key}");
    }
}

#[test]
fn values_and_defaults() {
    let text = "interface = 'eth0'\nprotect = ['udp/8000-8002', 'quic/4001']\nmode = 'enforce'\nfloor = ['203.0.113.0/24']\nheartbeat_timeout = '1m'\n\
                allow_uid = [1000, 'root']\nallow_group = ['root']\nmetrics = '127.0.0.1:9465'\n[budgets]\nsyn_source = { rate = 5, burst = 9 }\n\
                [[ban_files]]\npath = '/etc/bans'\nttl = '2h'\nas = 'list'\n";
    let settings = read(text, &[]).unwrap();
    assert_eq!(ports::summary(&settings.options.protect), ["udp/4001", "udp/8000-8002"]);
    assert_eq!((settings.options.mode, settings.options.quic.as_slice()), (Some(Mode::Enforce), &[4001][..]));
    assert_eq!(settings.options.heartbeat_timeout, Duration::from_secs(60));
    assert_eq!((settings.access.uids, settings.access.gids), (vec![1000, 0], vec![0]));
    let bans = BanFile { path: "/etc/bans".into(), ttl: Duration::from_secs(7200), list: Some("bans".into()) };
    assert_eq!(settings.ban_files, [bans]);
    assert_eq!(settings.options.strangers.len(), 1);
    let least = read(LEAST, &[]).unwrap();
    assert_eq!((least.metrics, least.options.mode, least.options.instance.as_str()), (None, None, INSTANCE));
}

#[test]
fn flags_win() {
    let text = "interface = 'eth0'\nprotect = ['tcp/1']\nmode = 'enforce'\nsocket = '/a'\n[budgets]\nsyn_source = { rate = 5, burst = 9 }\n";
    let arguments = ["--iface", "eth1", "--protect", "udp/2", "--mode", "off", "--socket", "/b", "--budget", "syn_source=7/8"];
    let settings = read(text, &arguments).unwrap();
    assert_eq!((settings.options.interface.as_str(), settings.options.mode), ("eth1", Some(Mode::Off)));
    assert_eq!(ports::summary(&settings.options.protect), ["udp/2"]);
    assert_eq!(settings.socket, Path::new("/b"));
    let (_, last) = settings.options.strangers.last().unwrap();
    assert_eq!((last.rate, last.burst), (7, 8));
}

#[test]
fn a_mistake_is_told_with_file_line_and_key() {
    let check = |text: &str, line: &str, parts: &[&str]| {
        let error = read(text, &[]).unwrap_err();
        assert!(error.starts_with(line), "{error}");
        parts.iter().for_each(|part| assert!(error.contains(part), "{error}: no {part}"));
    };
    check("interface = 'eth0'\nmode = 'on'\n", "guard.toml:2: mode: ", &["off, shadow or enforce"]);
    check("protect = [\n  'tcp/1',\n  'tcp/x',\n]\n", "guard.toml:1: protect: ", &["'x' is no port"]);
    check("\n\nintreface = 'eth0'\n", "guard.toml:3: intreface: ", &["unknown field"]);
    check("interface = \n", "guard.toml:1: interface: ", &[]);
    check("event_shift = 32\n", "guard.toml:1: event_shift: ", &["more than 31"]);
    check("heartbeat_timeout = '0s'\n", "guard.toml:1: heartbeat_timeout: ", &["longer than nothing"]);
    check("floor = ['10.0.0.0/33']\n", "guard.toml:1: floor: ", &["prefix length"]);
    check("metrics = 'localhost'\n", "guard.toml:1: metrics: ", &[]);
    check("allow_group = ['no such group']\n", "guard.toml:1: allow_group: ", &["no group"]);
    check("[budgets]\nsyn_sauce = { rate = 1, burst = 1 }\n", "guard.toml:", &["'syn_sauce' is no budget"]);
    check("[budgets]\nsyn_source = { rate = 0, burst = 1 }\n", "guard.toml:", &["syn_source: ", "never refills"]);
    check("[[ban_files]]\npath = '/x'\nas = 'floor'\n", "guard.toml:3: as: ", &["as manual (a ban a line) or as list"]);
    check("[[ban_files]]\npath = '/x'\nttl = '31d'\n", "guard.toml:", &["1 s to 30 days"]);
    check("[[ban_files]]\nttl = '1d'\n", "guard.toml:1: ban_files: ", &["missing field `path`"]);
    check("[[ban_files]]\npath = '/x'\nname = 'y'\n", "guard.toml:", &["only a file taken as list"]);
    check("[[ban_files]]\npath = '/a b.txt'\nas = 'list'\n", "guard.toml:", &["'a b' can't name a list"]);
    let twice = "[[ban_files]]\npath = '/x.txt'\nas = 'list'\n[[ban_files]]\npath = '/y'\nas = 'list'\nname = 'x'\n";
    check(&format!("{LEAST}{twice}"), "guard.toml: ban_files: ", &["two files are the list 'x'"]);
    let list = |number| format!("[[ban_files]]\npath = '/{number}'\nas = 'list'\n");
    check(&format!("{LEAST}{}", (0..9).map(list).collect::<String>()), "guard.toml: ban_files: ", &["9 lists, 8 is the most"]);
    check("protect = ['tcp/1']\n", "guard.toml: interface: ", &[]);
    check("interface = 'eth0'\n", "guard.toml: protect: ", &["no port"]);
    check(&format!("{LEAST}instance = 'a/b'\n"), "guard.toml: instance: ", &["no instance name"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// A file that is bent in a few places is read, or refused by its name and, if the place is known, its line.
    #[test]
    fn a_bent_file_is_read_or_refused_by_name(
        bends in prop::collection::vec((any::<prop::sample::Index>(), "[ -~\n]", any::<bool>()), 1..6),
    ) {
        let mut text = crate::invariants::config::keys();
        for (at, piece, insert) in bends {
            let at = text.floor_char_boundary(at.index(text.len()));
            let end = if insert { at } else { text.ceil_char_boundary(at + 1).min(text.len()) };
            text.replace_range(at..end, &piece);
        }
        if let Err(error) = read(&text, &[]) {
            let place = error.strip_prefix("guard.toml:").unwrap_or_else(|| panic!("{error}"));
            let line = place.split(':').next().and_then(|line| line.parse::<usize>().ok());
            prop_assert!(line.is_none_or(|line| line >= 1 && line <= text.lines().count() + 1), "{}", error);
        }
    }
}
