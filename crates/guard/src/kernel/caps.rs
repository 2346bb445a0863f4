//! Capabilities: what the guard keeps once its directories, mounts and sockets exist.

use std::io;

const CAP_NET_ADMIN: u32 = 12;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;
const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Drops all capabilities of this thread but CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, for good: the bounding set shrinks too, and
/// no program executed from here gets any back. Call it before other threads start; they inherit it.
pub fn drop_to_needed() -> io::Result<()> {
    let needed = [CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF];
    for capability in (0..64).filter(|capability| !needed.contains(capability)) {
        // SAFETY: prctl with integers. EINVAL marks the end of what this kernel knows.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability as libc::c_ulong, 0, 0, 0) };
        if result != 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EPERM) {
            break; // without CAP_SETPCAP (an ordinary user with ambient capabilities) there is nothing to drop from
        }
    }
    // SAFETY: prctl with integers.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: header and data are valid for version 3.
    if unsafe { libc::syscall(libc::SYS_capget, &mut header, data.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    for (half, data) in data.iter_mut().enumerate() {
        let mask = needed
            .iter()
            .filter(|capability| **capability as usize / 32 == half)
            .fold(0, |mask, capability| mask | 1 << (capability % 32));
        let kept = data.permitted & mask;
        *data = Data { effective: kept, permitted: kept, inheritable: 0 };
    }
    // SAFETY: as above.
    if unsafe { libc::syscall(libc::SYS_capset, &header, data.as_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
