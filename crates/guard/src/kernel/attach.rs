//! Attaching: XDP in native mode, else in generic mode, else TCX, else nothing; or taking over a pinned link.

use super::{
    bpffs,
    load::Loaded,
    netlink::{self, XdpState},
    syn_proxy::{Former, NAME as SYNCOOKIES},
    sys::{self, Hook},
};
use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

/// Which mode is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preference {
    /// Native, else generic, else TCX.
    Auto,
    /// Native or nothing.
    Native,
    /// Generic, even where native works.
    Generic,
    /// TCX, even where XDP works; also beside somebody else's XDP program.
    Tcx,
}

impl Preference {
    /// The name on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Preference::Auto => "auto",
            Preference::Native => "native",
            Preference::Generic => "generic",
            Preference::Tcx => TCX,
        }
    }

    /// What is tried, in this order.
    const fn places(self) -> &'static [Place] {
        match self {
            Preference::Auto => &[Place::Native, Place::Generic, Place::Tcx],
            Preference::Native => &[Place::Native],
            Preference::Generic => &[Place::Generic],
            Preference::Tcx => &[Place::Tcx],
        }
    }
}

/// Where a filter can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Native,
    Generic,
    Tcx,
}

/// The word for TCX in metrics and JSON.
const TCX: &str = "tcx";
/// Hardware types whose frames begin with an Ethernet header.
const ETHERNET: [u16; 2] = [libc::ARPHRD_ETHER, libc::ARPHRD_LOOPBACK];

const FLAG_GENERIC: u32 = 1 << 1;
const FLAG_NATIVE: u32 = 1 << 2;

/// What came of it.
pub struct Attached {
    /// The link; `None` when this interface takes no program at all.
    pub link: Option<OwnedFd>,
    /// The hook that it is in.
    pub hook: Option<Hook>,
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
    /// An earlier guard's filter is there, in another way than the one that is asked for now.
    #[error(
        "{interface} is filtered by an earlier guard of this instance ({has}); run `ebpf-guard detach` before asking for {wanted}"
    )]
    Elsewhere {
        /// Interface.
        interface: String,
        /// The mode that it is in.
        has: &'static str,
        /// The mode that was asked for.
        wanted: &'static str,
    },
    /// Its packets are not frames.
    #[error(
        "packets on {interface} have no Ethernet header (hardware type {hardware}): there is nothing that the filter could read"
    )]
    NotEthernet {
        /// Interface.
        interface: String,
        /// `ARPHRD_*`.
        hardware: u16,
    },
    /// The kernel refused.
    #[error("{interface} takes no program in the mode that was asked for")]
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

/// How an interface is filtered by this link: `native`, `generic`, `offloaded`, `tcx`, or `none`.
pub fn way(index: u32, link: Option<BorrowedFd<'_>>) -> &'static str {
    let info = link.and_then(|link| sys::link_info(link).ok()).filter(|info| info.ifindex == index);
    match info.and_then(|info| info.hook) {
        Some(Hook::Tcx) => TCX,
        Some(Hook::Xdp) => netlink::xdp_state(index).ok().and_then(|state| state.mode).map_or("none", |mode| mode.as_str()),
        None => "none",
    }
}

/// Attaches the filter to `interface` with its link pinned as `directory/link`. A link that an earlier guard of this instance left
/// (in `directory`, or in one of another layout) is taken over, its program swapped, without one packet unfiltered. `present` is
/// what [`present`] said while names could still be read. [`check`] comes first.
pub fn attach(
    object: &mut Loaded,
    interface: &str,
    preference: Preference,
    directory: &Path,
    older: &[PathBuf],
    present: Option<&(u32, String)>,
) -> Result<Attached, AttachError> {
    let index = ifindex(interface)?;
    let pin = directory.join("link");
    for left in pins(directory, older) {
        let link = open(&left)?;
        if let Some(hook) = ours(link.as_fd(), index)? {
            adopt(object, hook, link.as_fd(), &left, &pin)?;
            return Ok(Attached { link: Some(link), hook: Some(hook), adopted: true });
        }
        // The link's interface is gone or another one: it has no business there any more.
        bpffs::remove_link(&left).map_err(failed("removing a stale link"))?;
    }
    let Some((link, hook)) = create(object, interface, index, preference, present)? else {
        return Ok(Attached { link: None, hook: None, adopted: false });
    };
    sys::pin(link.as_fd(), &pin).map_err(failed("pinning the link"))?;
    Ok(Attached { link: Some(link), hook: Some(hook), adopted: false })
}

/// Whether [`attach`] would be refused for what is on the interface already. Changes nothing: a guard that is refused leaves the one that is there
/// as it was.
pub fn check(
    interface: &str,
    preference: Preference,
    directory: &Path,
    older: &[PathBuf],
    present: Option<&(u32, String)>,
) -> Result<(), AttachError> {
    let index = ifindex(interface)?;
    let state = netlink::xdp_state(index).map_err(failed("reading the interface"))?;
    if !ETHERNET.contains(&state.hardware) {
        return Err(AttachError::NotEthernet { interface: interface.to_string(), hardware: state.hardware });
    }
    for left in pins(directory, older) {
        let link = open(&left)?;
        if ours(link.as_fd(), index)?.is_none() {
            continue;
        }
        let has = way(index, Some(link.as_fd()));
        if preference != Preference::Auto && preference.as_str() != has {
            return Err(AttachError::Elsewhere { interface: interface.to_string(), has, wanted: preference.as_str() });
        }
        return Ok(());
    }
    if preference != Preference::Tcx && state.mode.is_some() {
        return Err(foreign(interface, state, present));
    }
    Ok(())
}

/// Pins of links that guards of this instance left, of this layout or another.
fn pins(directory: &Path, older: &[PathBuf]) -> Vec<PathBuf> {
    let directories = std::iter::once(directory).chain(older.iter().map(PathBuf::as_path));
    directories.map(|directory| directory.join("link")).filter(|pin| pin.exists()).collect()
}

fn open(pin: &Path) -> Result<OwnedFd, AttachError> {
    sys::open_pin(pin, 0).map_err(failed(format!("opening {}", pin.display())))
}

/// The hook of a pinned link, if it is one that filters this interface in this namespace.
fn ours(link: BorrowedFd<'_>, index: u32) -> Result<Option<Hook>, AttachError> {
    let info = sys::link_info(link).map_err(failed("reading the link"))?;
    if info.ifindex != index {
        return Ok(None);
    }
    // The same index may exist in many namespaces: the interface must name the link, or its program, too.
    let named = match info.hook {
        Some(Hook::Xdp) => {
            let state = netlink::xdp_state(index).map_err(failed("reading the interface"))?;
            state.mode.is_some() && state.program_id == info.program_id
        }
        Some(Hook::Tcx) => sys::tcx_links(index).map_err(failed("reading the interface's classifiers"))?.contains(&info.id),
        None => false,
    };
    Ok(info.hook.filter(|_| named))
}

/// Swaps the program of a link that is pinned at `left`, and has it pinned at `pin`. There first: whoever finds it there knows
/// that the maps beside it are complete.
fn adopt(object: &mut Loaded, hook: Hook, link: BorrowedFd<'_>, left: &Path, pin: &Path) -> Result<(), AttachError> {
    let program = match hook {
        Hook::Xdp => object.guard.try_clone(),
        Hook::Tcx => object.tcx().map_err(io::Error::other),
    };
    let program = program.map_err(failed("keeping the program"))?;
    fs::rename(left, pin).map_err(failed("moving the link's pin"))?;
    if let Err(error) = sys::link_update(link, program.as_fd()) {
        let _ = fs::rename(pin, left);
        return Err(failed("swapping the program")(error));
    }
    Ok(())
}

fn create(
    object: &mut Loaded,
    interface: &str,
    index: u32,
    preference: Preference,
    present: Option<&(u32, String)>,
) -> Result<Option<(OwnedFd, Hook)>, AttachError> {
    if preference == Preference::Tcx
        && let Some((id, program)) = present
    {
        tracing::warn!(interface, id, program, "an XDP program that is not ours sees the packets before the filter does");
    }
    let mut refusals = Vec::new();
    for place in preference.places() {
        let made = match place {
            Place::Native => sys::link_xdp(object.guard.as_fd(), index, FLAG_NATIVE).map(|link| (link, Hook::Xdp)),
            Place::Generic => sys::link_xdp(object.guard.as_fd(), index, FLAG_GENERIC).map(|link| (link, Hook::Xdp)),
            Place::Tcx => tcx(object, index).map(|link| (link, Hook::Tcx)),
        };
        let error = match made {
            Ok(made) => {
                if !refusals.is_empty() {
                    tracing::warn!(interface, refused = told(&refusals), "not every way of filtering was to be had");
                }
                return Ok(Some(made));
            }
            Err(error) => error,
        };
        if *place != Place::Tcx {
            let state = netlink::xdp_state(index).map_err(failed("reading the interface"))?;
            // EEXIST without a program here is another device's: this one's bridge or bond has one, and then its ports take none.
            if state.mode.is_some() || error.raw_os_error() == Some(libc::EBUSY) {
                return Err(foreign(interface, state, present));
            }
        }
        refusals.push((*place, error));
    }
    if preference == Preference::Auto {
        tracing::error!(interface, refused = told(&refusals), "no way of filtering was to be had");
        return Ok(None);
    }
    let source = refusals.pop().map_or_else(|| io::ErrorKind::Unsupported.into(), |(_, error)| error);
    Err(AttachError::Refused { interface: interface.to_string(), source })
}

fn tcx(object: &mut Loaded, index: u32) -> io::Result<OwnedFd> {
    let program = object.tcx().map_err(io::Error::other)?;
    sys::link_tcx(program.as_fd(), index)
}

/// What was refused, for the log.
fn told(refusals: &[(Place, io::Error)]) -> String {
    let lines: Vec<String> =
        refusals.iter().map(|(place, error)| format!("{}: {error}", format!("{place:?}").to_lowercase())).collect();
    lines.join("; ")
}

fn foreign(interface: &str, state: XdpState, present: Option<&(u32, String)>) -> AttachError {
    let name = present.filter(|(id, _)| *id == state.program_id).map(|(_, name)| name.as_str());
    let program = name.unwrap_or("unknown").to_string();
    AttachError::Foreign { interface: interface.to_string(), program, id: state.program_id }
}

/// Takes an instance's filter off and removes its pins, whatever their layout. What could not be put back as it was before, in words.
pub fn detach(root: &Path, instance: &str) -> Result<Vec<String>, AttachError> {
    let directories = bpffs::directories(root, instance).map_err(failed(format!("reading {}", root.display())))?;
    let former: Vec<Former> = directories.iter().filter_map(|directory| Former::read(directory)).collect();
    for directory in &directories {
        bpffs::remove(directory).map_err(failed(format!("removing {}", directory.display())))?;
    }
    Ok(former.into_iter().filter_map(|former| former.restore(root).err()).map(|left| format!("{SYNCOOKIES}: {left}")).collect())
}
