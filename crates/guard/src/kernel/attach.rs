//! Attaching: native, else generic, else nothing; or taking over a pinned link.

use super::{
    bpffs,
    netlink::{self, XdpMode, XdpState},
    sys,
};
use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

/// Which mode is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preference {
    /// Native, else generic.
    Auto,
    /// Native or nothing.
    Native,
    /// Generic, even where native works.
    Generic,
}

const FLAG_GENERIC: u32 = 1 << 1;
const FLAG_NATIVE: u32 = 1 << 2;

/// What came of it.
pub struct Attached {
    /// The link; `None` when this interface takes no XDP program at all.
    pub link: Option<OwnedFd>,
    /// The mode that the kernel reports.
    pub mode: Option<XdpMode>,
    /// An earlier guard's link was taken over.
    pub adopted: bool,
}

/// Why nothing is attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// There is no such interface.
    #[error("there is no interface {0} in this network namespace")]
    Interface(String),
    /// Somebody else's program is there.
    #[error("{interface} already has an XDP program that is not ours: '{program}' (id {id}); it was left alone")]
    Foreign {
        /// Interface.
        interface: String,
        /// Its name, as the kernel knows it.
        program: String,
        /// Its id.
        id: u32,
    },
    /// The kernel refused.
    #[error("{interface} takes no XDP program in the mode that was asked for")]
    Refused {
        /// Interface.
        interface: String,
        /// Why.
        source: io::Error,
    },
    /// Pins or state can't be read or written.
    #[error("{operation} failed")]
    Io {
        /// What.
        operation: String,
        /// Why.
        source: io::Error,
    },
}

fn failed(operation: impl Into<String>) -> impl FnOnce(io::Error) -> AttachError {
    let operation = operation.into();
    move |source| AttachError::Io { operation, source }
}

/// The program that is on an interface now: id and name. Names need CAP_SYS_ADMIN; without it the name is `unknown`.
pub fn present(interface: &str) -> Result<Option<(u32, String)>, AttachError> {
    let state = netlink::xdp_state(ifindex(interface)?).map_err(failed("reading the interface"))?;
    if state.mode.is_none() {
        return Ok(None);
    }
    let mut programs = aya::programs::loaded_programs().filter_map(Result::ok).filter(|info| info.id() == state.program_id);
    let name = programs.find_map(|info| info.name_as_str().map(str::to_string));
    Ok(Some((state.program_id, name.unwrap_or_else(|| "unknown".to_string()))))
}

/// The index of an interface in this thread's network namespace.
pub fn ifindex(interface: &str) -> Result<u32, AttachError> {
    nix::net::if_::if_nametoindex(interface).map_err(|_| AttachError::Interface(interface.to_string()))
}

/// Attaches `program` to `interface` with its link pinned as `directory/link`. A link that an earlier guard of this instance left
/// (in `directory`, or in one of another layout) is taken over, its program swapped, without one packet unfiltered. `present` is
/// what [`present`] said while names could still be read.
pub fn attach(
    program: BorrowedFd<'_>,
    interface: &str,
    preference: Preference,
    directory: &Path,
    older: &[PathBuf],
    present: Option<&(u32, String)>,
) -> Result<Attached, AttachError> {
    let index = ifindex(interface)?;
    let pin = directory.join("link");
    for candidate in std::iter::once(directory).chain(older.iter().map(PathBuf::as_path)) {
        let left = candidate.join("link");
        if !left.exists() {
            continue;
        }
        if let Some(link) = adopt(program, index, &left)? {
            if left != pin {
                fs::rename(&left, &pin).map_err(failed("moving the link's pin"))?;
            }
            let state = netlink::xdp_state(index).map_err(failed("reading the interface"))?;
            return Ok(Attached { link: Some(link), mode: state.mode, adopted: true });
        }
        // The link's interface is gone or another one: it has no business there any more.
        bpffs::remove_link(&left).map_err(failed("removing a stale link"))?;
    }
    let Some(link) = create(program, interface, index, preference, present)? else {
        return Ok(Attached { link: None, mode: None, adopted: false });
    };
    sys::pin(link.as_fd(), &pin).map_err(failed("pinning the link"))?;
    let state = netlink::xdp_state(index).map_err(failed("reading the interface"))?;
    Ok(Attached { link: Some(link), mode: state.mode, adopted: false })
}

/// Takes over a pinned link if it is the one that filters this interface in this namespace.
fn adopt(program: BorrowedFd<'_>, index: u32, pin: &Path) -> Result<Option<OwnedFd>, AttachError> {
    let link = sys::open_pin(pin, 0).map_err(failed(format!("opening {}", pin.display())))?;
    let info = sys::link_info(link.as_fd()).map_err(failed("reading the link"))?;
    let state = netlink::xdp_state(index).map_err(failed("reading the interface"))?;
    // The same index may exist in many namespaces: the interface must name the link's program too.
    if info.ifindex != index || state.mode.is_none() || state.program_id != info.program_id {
        return Ok(None);
    }
    sys::link_update(link.as_fd(), program).map_err(failed("swapping the program"))?;
    Ok(Some(link))
}

fn create(
    program: BorrowedFd<'_>,
    interface: &str,
    index: u32,
    preference: Preference,
    present: Option<&(u32, String)>,
) -> Result<Option<OwnedFd>, AttachError> {
    let modes: &[u32] = match preference {
        Preference::Auto => &[FLAG_NATIVE, FLAG_GENERIC],
        Preference::Native => &[FLAG_NATIVE],
        Preference::Generic => &[FLAG_GENERIC],
    };
    let mut refused = None;
    for flags in modes {
        match sys::link_xdp(program, index, *flags) {
            Ok(link) => return Ok(Some(link)),
            Err(error) => {
                let state = netlink::xdp_state(index).unwrap_or_default();
                if state.mode.is_some() || matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST)) {
                    return Err(foreign(interface, state, present));
                }
                refused = Some(error);
            }
        }
    }
    match refused {
        Some(source) if preference != Preference::Auto => Err(AttachError::Refused { interface: interface.to_string(), source }),
        _ => Ok(None),
    }
}

fn foreign(interface: &str, state: XdpState, present: Option<&(u32, String)>) -> AttachError {
    let name = present.filter(|(id, _)| *id == state.program_id).map(|(_, name)| name.as_str());
    let program = name.unwrap_or("unknown").to_string();
    AttachError::Foreign { interface: interface.to_string(), program, id: state.program_id }
}

/// Takes an instance's filter off and removes its pins, whatever their layout. The directories that were removed.
pub fn detach(root: &Path, instance: &str) -> Result<Vec<PathBuf>, AttachError> {
    let directories = bpffs::directories(root, instance).map_err(failed(format!("reading {}", root.display())))?;
    for directory in &directories {
        bpffs::remove(directory).map_err(failed(format!("removing {}", directory.display())))?;
    }
    Ok(directories)
}
