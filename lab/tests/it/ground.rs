//! What the tests stand on: privileges, the lab's program, placeholders for node and guard.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The lab's own program.
pub const LAB: &str = env!("CARGO_BIN_EXE_ebpf-lab");

/// Whether a test may make namespaces. Without: it says so, and a root in CI must have them.
pub fn namespaces() -> bool {
    let root = nix::unistd::Uid::effective().is_root();
    if root && lab::namespace::allowed() {
        return true;
    }
    assert!(!(root && std::env::var_os("CI").is_some()), "root in CI, but network namespaces are refused");
    eprintln!("skipped (1): needs root and network namespaces");
    false
}

/// Waits for an event of the outside world; the bound only keeps a broken test from hanging.
pub fn await_that(what: &str, mut seen: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !seen() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A folder that other users can enter, with a placeholder for `ebpf-node` that knows its command line and then sleeps.
pub fn placeholder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    open_to_all(dir.path());
    let script = "#!/bin/sh\n\
        # init --home DIR | keys show --json --home DIR | start --home DIR\n\
        case \"$1\" in\n\
        init) mkdir -p \"$3\" && echo secret > \"$3/validator.key\" ;;\n\
        keys) printf '{\"peer_id\":\"12D3%s\",\"validator_key\":\"%s\"}' \"$$\" \"$(basename \"$5\" | sha256sum | cut -c1-64)\" ;;\n\
        start) pwd; test -r validator.key && exec sleep 600 ;;\n\
        esac\n";
    let program = dir.path().join("ebpf-node");
    std::fs::write(&program, script).unwrap();
    open_to_all(&program);
    dir
}

fn open_to_all(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// The real programs beside the lab's own, once the workspace is built.
pub fn real_programs() -> Option<PathBuf> {
    let folder = Path::new(LAB).parent().unwrap();
    let built = folder.join("ebpf-node").exists() && folder.join("ebpf-guard").exists();
    if built {
        return Some(folder.to_path_buf());
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "CI must build ebpf-node and ebpf-guard before the tests (cargo build --workspace --bins)"
    );
    eprintln!("skipped (1): ebpf-node or ebpf-guard is not built (cargo build --workspace --bins)");
    None
}
