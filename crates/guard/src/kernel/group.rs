//! The node's control group, by its path. A service manager removes the group when the service ends and makes another one for its
//! next start; the kernel detaches what was on the first. So hooks follow the path: whoever looks is told when another group is
//! there.

use super::egress::EgressError;
use std::{
    fs::File,
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Magic number of cgroup2.
const CGROUP2_MAGIC: libc::c_long = 0x6367_7270;
/// The line of a hook that waits for its group.
pub const GONE: &str = "none: the control group is gone";

/// A path of a control group, and which group at it has the hooks.
#[derive(Debug)]
pub struct Group {
    path: PathBuf,
    /// Its id, which is its directory's inode and is never given twice; 0: not all hooks are on. `None`: no group was there.
    hooked: Option<u64>,
}

/// What is at the path.
pub enum Seen {
    /// The group that has the hooks; or none, as before.
    Same,
    /// A group without them, by its directory and its id.
    Other(File, u64),
    /// None any more.
    Gone,
}

impl Group {
    /// Of a directory of cgroup2, or of a place for one.
    pub fn new(path: &Path) -> Result<Group, EgressError> {
        let present = path.ancestors().find(|ancestor| ancestor.exists());
        let possible = present.and_then(|present| File::open(present).ok()).is_some_and(|present| is_group(&present));
        match possible {
            true => Ok(Group { path: path.to_path_buf(), hooked: None }),
            false => Err(EgressError::Group(path.to_path_buf())),
        }
    }

    /// Looks what is there now. Needs no right but to read the directory.
    pub fn look(&self) -> io::Result<Seen> {
        let present = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            opened => Some(opened?).filter(is_group),
        };
        let Some(directory) = present else {
            return Ok(if self.hooked.is_some() { Seen::Gone } else { Seen::Same });
        };
        let id = directory.metadata()?.ino();
        Ok(if self.hooked == Some(id) { Seen::Same } else { Seen::Other(directory, id) })
    }

    /// Keeps in mind which group has the hooks; see the field.
    pub fn set_hooked(&mut self, id: Option<u64>) {
        self.hooked = id;
    }
}

fn is_group(file: &File) -> bool {
    let is_cgroup2 = nix::sys::statfs::fstatfs(file).is_ok_and(|status| status.filesystem_type().0 == CGROUP2_MAGIC);
    is_cgroup2 && file.metadata().is_ok_and(|metadata| metadata.is_dir())
}
