//! The directory of pins: on a bpf file system, named after the instance and the map layout.

use super::sys;
use nix::sys::statfs::FsType;
use std::{
    fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

/// Where pins live unless told otherwise.
pub const DEFAULT: &str = "/sys/fs/bpf/ebpf-guard";
/// Where they live under the systemd unit, whose guard isn't root: a bpf file system of its own.
pub const UNIT: &str = "/run/ebpfguard/bpf";
/// Where the system mounts its bpf file system.
const SYSTEM_MOUNT: &str = "/sys/fs/bpf";
/// Magic number of the bpf file system.
const BPF_FS_MAGIC: libc::c_long = 0xcafe_4a11;

/// Whether the path lies on a bpf file system.
pub fn is_bpffs(path: &Path) -> bool {
    nix::sys::statfs::statfs(path).is_ok_and(|status| status.filesystem_type() == FsType(BPF_FS_MAGIC))
}

/// Makes sure that `path` is a directory on a bpf file system: creates it on one, or mounts one (the system's place if the path
/// lies there, else at the path itself).
pub fn ensure(path: &Path) -> io::Result<()> {
    if is_bpffs(path) {
        return Ok(());
    }
    let system = Path::new(SYSTEM_MOUNT);
    if path.starts_with(system) {
        if !is_bpffs(system) {
            mount(system)?;
        }
        return fs::create_dir_all(path);
    }
    if path.ancestors().skip(1).find(|ancestor| ancestor.exists()).is_some_and(is_bpffs) {
        return fs::create_dir_all(path);
    }
    fs::create_dir_all(path)?;
    mount(path)
}

fn mount(path: &Path) -> io::Result<()> {
    use nix::mount::MsFlags;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    nix::mount::mount(Some("bpf"), path, Some("bpf"), flags, Some("mode=0700")).map_err(io::Error::from)
}

/// An instance name: letters, digits, `-`, `_`, `.`; at most 64.
pub fn is_instance_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !name.is_empty() && name.len() <= 64 && !name.starts_with('.') && name.bytes().all(fits)
}

/// The directory of an instance with this layout.
pub fn directory(root: &Path, instance: &str, abi_hash: u64) -> PathBuf {
    root.join(format!("{instance}-{abi_hash:016x}"))
}

/// Where all instances have their directories.
pub fn root(directory: &Path) -> &Path {
    directory.parent().unwrap_or(directory)
}

/// All directories of an instance, of whatever layout.
pub fn directories(root: &Path, instance: &str) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let hash = name.strip_prefix(instance).and_then(|rest| rest.strip_prefix('-'));
        if hash.is_some_and(|hash| hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit())) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Detaches a pinned link and removes its pin. When it returns, no packet meets the filter any more.
pub fn remove_link(pin: &Path) -> io::Result<()> {
    match sys::open_pin(pin, 0) {
        Ok(link) => sys::link_detach(link.as_fd())?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    fs::remove_file(pin)
}

/// Removes an instance's directory: links first, so that filter and egress guard are off before their maps lose their names.
pub fn remove(directory: &Path) -> io::Result<()> {
    let entries = || fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<PathBuf>>>();
    let is_link = |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"link"));
    for link in entries()?.iter().filter(|path| is_link(path)) {
        remove_link(link)?;
    }
    for path in entries()? {
        fs::remove_file(path)?;
    }
    fs::remove_dir(directory)
}

/// Removes the pins of maps in a directory, and leaves those of links, and what a switch of the system's was.
pub fn forget_maps(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if !outlives_maps(&entry.file_name()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Whether a pin of this name is no map's: a link, or what a switch of the system's was.
pub fn outlives_maps(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b"link") || name == super::syn_proxy::PIN
}

/// Unmounts a bpf file system that [`ensure`] mounted at `root`, once no instance has pins there. The system's own stays.
pub fn release(root: &Path) -> io::Result<()> {
    let parent_is = root.parent().is_some_and(is_bpffs);
    if root.starts_with(SYSTEM_MOUNT) || parent_is || !is_bpffs(root) {
        return Ok(());
    }
    // The kernel keeps two files of its own in a bpf file system, and no directory.
    for entry in fs::read_dir(root)? {
        if entry?.file_type()?.is_dir() {
            return Ok(());
        }
    }
    nix::mount::umount(root).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["node1", "a", "v-1.eth_0"] {
            assert!(is_instance_name(good));
        }
        for bad in ["", ".", "../x", "a/b", "a b", &"x".repeat(65)] {
            assert!(!is_instance_name(bad));
        }
    }

    #[test]
    fn only_an_instances_own_directories_are_found() {
        let root = tempfile::tempdir().unwrap();
        for name in ["a-0123456789abcdef", "a-b-0123456789abcdef", "a-0123", "b-0123456789abcdef"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        assert_eq!(directories(root.path(), "a").unwrap(), [root.path().join("a-0123456789abcdef")]);
        assert_eq!(directories(&root.path().join("none"), "a").unwrap(), Vec::<PathBuf>::new());
    }
}
