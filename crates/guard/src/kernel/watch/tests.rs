//! Watched files against a sink that remembers.

use super::*;
use std::fs;

#[derive(Default)]
struct Told {
    bans: BTreeMap<Prefix, (u64, String)>,
    lists: BTreeMap<String, String>,
    busy: bool,
    calls: usize,
}

impl Sink for Told {
    fn ban(&mut self, prefix: Prefix, ttl_ms: u64, note: &str) -> Result<(), String> {
        self.calls += 1;
        if prefix.contains("10.9.9.9".parse().unwrap()) {
            return Err("the floor can't be banned".into());
        }
        self.bans.insert(prefix, (ttl_ms, note.to_string()));
        Ok(())
    }
    fn lift(&mut self, prefix: Prefix) -> Result<(), String> {
        self.calls += 1;
        self.bans.remove(&prefix);
        Ok(())
    }
    fn load(&mut self, list: &str, _: u64, mut text: File) -> Result<Loaded, NotLoaded> {
        self.calls += 1;
        let mut said = String::new();
        text.read_to_string(&mut said).unwrap();
        match said.as_str() {
            _ if self.busy => Err(NotLoaded::Busy),
            "nonsense" => Err(NotLoaded::Refused("no prefix".into())),
            "" => self.unload(list).map(|()| Loaded::Nothing).map_err(NotLoaded::Refused),
            _ => {
                self.lists.insert(list.into(), said);
                let (name, skipped_lines) = (list.to_string(), vec![]);
                let (prefixes, since_unix_ms, until_unix_ms, hits, skipped, floor_cut, bytes) = (1, 0, 0, 0, 0, 0, 0);
                let info =
                    ListInfo { name, prefixes, since_unix_ms, until_unix_ms, hits, skipped, skipped_lines, floor_cut, bytes };
                Ok(Loaded::List(info))
            }
        }
    }
    fn prolong(&mut self, list: &str, _: u64) -> Result<bool, String> {
        self.calls += 1;
        Ok(self.lists.contains_key(list))
    }
    fn unload(&mut self, list: &str) -> Result<(), String> {
        self.lists.remove(list);
        Ok(())
    }
}

impl Told {
    fn is(&self, expect: &[&str]) {
        let expect: Vec<Prefix> = expect.iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(self.bans.keys().copied().collect::<Vec<_>>(), expect);
    }
}

struct Bench {
    folder: tempfile::TempDir,
    told: Told,
}

impl Bench {
    fn new() -> Bench {
        Bench { folder: tempfile::tempdir().unwrap(), told: Told::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self, name: &str) -> BanFile {
        BanFile { path: self.path(name), ttl: Duration::from_secs(600), list: None }
    }

    fn list(&self, name: &str) -> BanFile {
        BanFile { list: Some("feed".into()), ..self.file(name) }
    }

    fn says(&self, expect: Option<&str>) {
        assert_eq!(self.told.lists.get("feed").map(String::as_str), expect);
    }

    fn start(&mut self, names: &[&str]) -> Watcher {
        let files: Vec<BanFile> = names.iter().map(|name| self.file(name)).collect();
        Watcher::start(&files, &mut self.told)
    }
}

// Events of inotify are there when the call that causes them returns: nothing is waited for.

#[test]
fn append_rename_over_truncate_and_write_again() {
    let mut bench = Bench::new();
    let path = bench.path("bans");
    fs::write(&path, "10.0.0.1 # first\n").unwrap();
    let mut watcher = bench.start(&["bans"]);
    bench.told.is(&["10.0.0.1"]);
    assert_eq!(bench.told.bans.values().next(), Some(&(600_000, "bans: first".to_string())));
    {
        use std::io::Write;
        let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
        writeln!(file, "10.0.0.2 30s").unwrap();
    }
    watcher.poll(&mut bench.told);
    bench.told.is(&["10.0.0.1", "10.0.0.2"]);
    fs::write(bench.path("bans.new"), "10.0.0.2 30s\nbad line here\n10.0.0.3\n").unwrap();
    watcher.poll(&mut bench.told);
    bench.told.is(&["10.0.0.1", "10.0.0.2"]);
    fs::rename(bench.path("bans.new"), &path).unwrap();
    let before = bench.told.calls;
    watcher.poll(&mut bench.told);
    bench.told.is(&["10.0.0.2", "10.0.0.3"]);
    assert_eq!(bench.told.calls - before, 2, "one line is new, one is gone, one stands");
    fs::write(&path, "").unwrap();
    watcher.poll(&mut bench.told);
    bench.told.is(&[]);
    assert!(watcher.is_empty());
}

#[test]
fn a_missing_file_changes_nothing_and_one_that_comes_later_is_read() {
    let mut bench = Bench::new();
    let mut watcher = bench.start(&["bans"]);
    bench.told.is(&[]);
    fs::write(bench.path("bans"), "10.0.0.1\n").unwrap();
    watcher.poll(&mut bench.told);
    bench.told.is(&["10.0.0.1"]);
    fs::remove_file(bench.path("bans")).unwrap();
    watcher.poll(&mut bench.told);
    watcher.tick(&mut bench.told);
    watcher.tick(&mut bench.told);
    bench.told.is(&["10.0.0.1"]);
    fs::write(bench.path("bans"), "10.0.0.2\n").unwrap();
    watcher.poll(&mut bench.told);
    bench.told.is(&["10.0.0.2"]);
}

#[test]
fn a_link_that_points_elsewhere_is_noticed_by_the_tick() {
    let mut bench = Bench::new();
    fs::write(bench.path("one"), "10.0.0.1\n").unwrap();
    fs::write(bench.path("two"), "10.0.0.22\n").unwrap();
    fs::create_dir(bench.path("data")).unwrap();
    std::os::unix::fs::symlink(bench.path("one"), bench.path("data/link")).unwrap();
    std::os::unix::fs::symlink(bench.path("data/link"), bench.path("bans")).unwrap();
    let mut watcher = bench.start(&["bans"]);
    bench.told.is(&["10.0.0.1"]);
    std::os::unix::fs::symlink(bench.path("two"), bench.path("data/new")).unwrap();
    fs::rename(bench.path("data/new"), bench.path("data/link")).unwrap();
    watcher.poll(&mut bench.told);
    bench.told.is(&["10.0.0.1"]);
    watcher.tick(&mut bench.told);
    watcher.tick(&mut bench.told);
    bench.told.is(&["10.0.0.22"]);
}

#[test]
fn two_files_may_name_the_same_and_a_file_may_be_dropped() {
    let mut bench = Bench::new();
    fs::write(bench.path("a"), "10.0.0.1\n10.0.0.2\n").unwrap();
    fs::write(bench.path("b"), "10.0.0.2 # also\n").unwrap();
    let mut watcher = bench.start(&["a", "b"]);
    fs::write(bench.path("a"), "10.0.0.1\n").unwrap();
    watcher.poll(&mut bench.told);
    bench.told.is(&["10.0.0.1", "10.0.0.2"]);
    let only = [bench.file("b")];
    watcher.replace(&only, &mut bench.told);
    bench.told.is(&["10.0.0.2"]);
    fs::write(bench.path("b"), "10.0.0.3\n").unwrap();
    watcher.poll(&mut bench.told);
    bench.told.is(&["10.0.0.3"]);
    watcher.replace(&[], &mut bench.told);
    bench.told.is(&[]);
}

#[test]
fn a_refused_line_leaves_the_others() {
    let mut bench = Bench::new();
    fs::write(bench.path("bans"), "10.0.0.1\n10.9.9.0/24\n10.0.0.2\n").unwrap();
    let watcher = bench.start(&["bans"]);
    bench.told.is(&["10.0.0.1", "10.0.0.2"]);
    assert_eq!(watcher.len(), 3);
}

#[test]
fn lines_without_a_ttl_are_renewed_while_they_stand() {
    let mut bench = Bench::new();
    fs::write(bench.path("bans"), "10.0.0.1\n10.0.0.2 1h\n").unwrap();
    let file = BanFile { ttl: Duration::ZERO, ..bench.file("bans") };
    let mut watcher = Watcher::start(&[file], &mut bench.told);
    bench.told.bans.clear();
    watcher.tick(&mut bench.told);
    bench.told.is(&["10.0.0.1"]);
}

#[test]
fn what_is_no_text_is_a_bad_line_and_what_is_too_long_is_not_read() {
    let mut bench = Bench::new();
    fs::write(bench.path("bans"), b"\xff\xfe\x00\n10.0.0.1\n").unwrap();
    let mut watcher = bench.start(&["bans"]);
    bench.told.is(&["10.0.0.1"]);
    fs::write(bench.path("bans"), vec![b'\n'; ban_file::BYTES_MAX as usize + 1]).unwrap();
    watcher.poll(&mut bench.told);
    bench.told.is(&["10.0.0.1"]);
    fs::create_dir(bench.path("folder")).unwrap();
    let folder = [bench.file("folder")];
    watcher.replace(&folder, &mut bench.told);
    bench.told.is(&[]);
}

#[test]
fn a_list_is_replaced_emptied_and_dropped_as_a_whole() {
    let mut bench = Bench::new();
    let path = bench.path("feed.txt");
    fs::write(&path, "one").unwrap();
    let files = [bench.list("feed.txt")];
    let mut watcher = Watcher::start(&files, &mut bench.told);
    bench.says(Some("one"));
    fs::write(bench.path("new"), "two").unwrap();
    fs::rename(bench.path("new"), &path).unwrap();
    watcher.poll(&mut bench.told);
    bench.says(Some("two"));
    // What is refused, and a file that is gone, change nothing.
    fs::write(&path, "nonsense").unwrap();
    watcher.poll(&mut bench.told);
    bench.says(Some("two"));
    let calls = bench.told.calls;
    watcher.tick(&mut bench.told);
    watcher.tick(&mut bench.told);
    assert_eq!(bench.told.calls, calls, "what was refused is not read again and again");
    fs::remove_file(&path).unwrap();
    watcher.poll(&mut bench.told);
    watcher.tick(&mut bench.told);
    watcher.tick(&mut bench.told);
    bench.says(Some("two"));
    fs::write(&path, "").unwrap();
    watcher.poll(&mut bench.told);
    bench.says(None);
    fs::write(&path, "three").unwrap();
    watcher.poll(&mut bench.told);
    bench.says(Some("three"));
    // Named by another file, it stays; named by none, it is taken away.
    fs::write(bench.path("other.txt"), "four").unwrap();
    let files = [bench.list("other.txt")];
    watcher.replace(&files, &mut bench.told);
    bench.says(Some("four"));
    watcher.replace(&[], &mut bench.told);
    bench.says(None);
}

#[test]
fn a_list_that_has_to_wait_is_read_when_there_is_room() {
    let mut bench = Bench::new();
    fs::write(bench.path("feed.txt"), "one").unwrap();
    let files = [bench.list("feed.txt")];
    bench.told.busy = true;
    let mut watcher = Watcher::start(&files, &mut bench.told);
    watcher.tick(&mut bench.told);
    bench.says(None);
    bench.told.busy = false;
    watcher.tick(&mut bench.told);
    bench.says(Some("one"));
}

#[test]
fn a_list_is_prolonged_while_it_is_named_and_comes_back() {
    let mut bench = Bench::new();
    fs::write(bench.path("feed.txt"), "one").unwrap();
    let files = [BanFile { ttl: Duration::ZERO, ..bench.list("feed.txt") }];
    let mut watcher = Watcher::start(&files, &mut bench.told);
    let calls = bench.told.calls;
    watcher.tick(&mut bench.told);
    assert_eq!(bench.told.calls, calls + 1, "prolonged, not read again");
    bench.told.lists.clear();
    watcher.tick(&mut bench.told);
    watcher.tick(&mut bench.told);
    bench.says(Some("one"));
}

#[test]
fn all_is_said_again_when_asked() {
    let mut bench = Bench::new();
    fs::write(bench.path("bans"), "10.0.0.1\n10.0.0.2 1h\n").unwrap();
    fs::write(bench.path("feed.txt"), "one").unwrap();
    let files = [bench.file("bans"), bench.list("feed.txt")];
    let mut watcher = Watcher::start(&files, &mut bench.told);
    bench.told.bans.clear();
    bench.told.lists.clear();
    watcher.repeat(&mut bench.told);
    bench.told.is(&["10.0.0.1", "10.0.0.2"]);
    bench.says(Some("one"));
}
