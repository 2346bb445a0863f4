//! The bpf(2) calls that the guard makes itself. The loader (parsing, relocation, program loading) is Aya's.
//!
//! Keys and values are [`Plain`] memory, so a map's layout is written once, in `kernel-shared`.

mod rows;

use kernel_shared::abi::Plain;
use std::{
    ffi::CString,
    io,
    mem::{MaybeUninit, size_of},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    os::unix::ffi::OsStrExt,
    path::Path,
};

pub use rows::{Bytes, Shape, map_entries, shape};

const MAP_CREATE: libc::c_int = 0;
const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const MAP_DELETE_ELEM: libc::c_int = 3;
const MAP_GET_NEXT_KEY: libc::c_int = 4;
const OBJ_PIN: libc::c_int = 6;
const OBJ_GET: libc::c_int = 7;
const PROG_TEST_RUN: libc::c_int = 10;
const PROG_QUERY: libc::c_int = 16;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const MAP_FREEZE: libc::c_int = 22;
const LINK_CREATE: libc::c_int = 28;
const LINK_UPDATE: libc::c_int = 29;
const LINK_DETACH: libc::c_int = 34;

/// `BPF_XDP`, the attach type.
const ATTACH_XDP: u32 = 37;
/// `BPF_TCX_INGRESS`, the attach type.
const ATTACH_TCX_INGRESS: u32 = 46;
/// `BPF_LINK_TYPE_XDP`.
const LINK_XDP: u32 = 6;
/// `BPF_LINK_TYPE_TCX`.
const LINK_TCX: u32 = 11;
/// `BPF_F_RDONLY`: the descriptor can be used for look-ups only.
pub const READ_ONLY: u32 = 1 << 3;

/// Calls bpf(2) with an attribute block.
fn bpf<T>(command: libc::c_int, attribute: &mut T) -> io::Result<i32> {
    // SAFETY: the block is valid for its size; the kernel checks everything in it.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attribute), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

#[repr(C)]
struct Element {
    map: u32,
    zero: u32,
    key: u64,
    value: u64,
    flags: u64,
}

fn element<K, V>(map: BorrowedFd<'_>, key: *const K, value: *const V) -> Element {
    Element { map: map.as_raw_fd() as u32, zero: 0, key: key as u64, value: value as u64, flags: 0 }
}

/// Looks a key up. Not for per-CPU maps, whose values are longer than `V`.
pub fn lookup<K: Plain, V: Plain>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    let mut value = MaybeUninit::<V>::zeroed();
    match bpf(MAP_LOOKUP_ELEM, &mut element(map, key, value.as_mut_ptr())) {
        // SAFETY: the kernel has written the value, and any bytes are one.
        Ok(_) => Ok(Some(unsafe { value.assume_init() })),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Inserts or replaces.
pub fn update<K: Plain, V: Plain>(map: BorrowedFd<'_>, key: &K, value: &V) -> io::Result<()> {
    bpf(MAP_UPDATE_ELEM, &mut element(map, key, value)).map(drop)
}

/// Deletes; false if there was nothing.
pub fn delete<K: Plain>(map: BorrowedFd<'_>, key: &K) -> io::Result<bool> {
    match bpf(MAP_DELETE_ELEM, &mut element(map, key, std::ptr::null::<u8>())) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// All keys of a map, at most `max`.
pub fn keys<K: Plain>(map: BorrowedFd<'_>, max: usize) -> io::Result<Vec<K>> {
    let mut keys: Vec<K> = Vec::new();
    while keys.len() < max {
        let mut next = MaybeUninit::<K>::zeroed();
        let previous = keys.last().map_or(std::ptr::null(), std::ptr::from_ref);
        match bpf(MAP_GET_NEXT_KEY, &mut element(map, previous, next.as_mut_ptr())) {
            // SAFETY: the kernel has written the key, and any bytes are one.
            Ok(_) => keys.push(unsafe { next.assume_init() }),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(keys)
}

#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    /// Of a map of maps: one like those that it holds.
    inner: u32,
    rest: [u32; 14],
}

impl MapCreate {
    /// Of an array; nothing asked for that is not said.
    const fn array(map_type: u32, value_size: u32, max_entries: u32) -> MapCreate {
        MapCreate { map_type, key_size: 4, value_size, max_entries, map_flags: 0, inner: 0, rest: [0; 14] }
    }

    fn create(mut self) -> io::Result<OwnedFd> {
        let fd = bpf(MAP_CREATE, &mut self)?;
        // SAFETY: a new descriptor that nobody else owns.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

/// Makes an array of words that fits into `LISTS`: of any size, and mappable.
pub fn list_map(words: u32) -> io::Result<OwnedFd> {
    const ARRAY: u32 = 2;
    const MMAPABLE: u32 = 1 << 10;
    const INNER_MAP: u32 = 1 << 12;
    MapCreate { map_flags: MMAPABLE | INNER_MAP, ..MapCreate::array(ARRAY, 8, words) }.create()
}

/// Returns when every program that was running has ended: after a grace period of the kernel's.
pub fn wait_for_programs() -> io::Result<()> {
    const GLOBAL: libc::c_int = 1;
    // SAFETY: integers only.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    if result >= 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        // A kernel with CPUs that have no tick (`nohz_full`), or that was built without this call.
        error if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => wait_by_update(),
        error => Err(error),
    }
}

/// The same by another way: an update of an array of maps returns after a grace period, too.
pub fn wait_by_update() -> io::Result<()> {
    const ARRAY_OF_MAPS: u32 = 12;
    let inner = list_map(1)?;
    let inner_fd = inner.as_raw_fd() as u32;
    let outer = MapCreate { inner: inner_fd, ..MapCreate::array(ARRAY_OF_MAPS, 4, 1) }.create()?;
    update(outer.as_fd(), &0u32, &inner_fd)
}

/// Whether a map is frozen.
pub fn is_frozen(map: BorrowedFd<'_>) -> io::Result<bool> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd()))?;
    Ok(info.lines().any(|line| line.strip_prefix("frozen:").is_some_and(|value| value.trim() == "1")))
}

/// Freezes a map: user space can't change it any more, programs can. A map that is frozen already is left alone.
pub fn freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    // Freezing needs a writable descriptor, and a frozen map gives none any more: ask first.
    if is_frozen(map)? {
        return Ok(());
    }
    bpf(MAP_FREEZE, &mut (map.as_raw_fd() as u32)).map(drop)
}

#[repr(C)]
struct Object {
    path: u64,
    fd: u32,
    flags: u32,
}

fn object(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// Opens a pin. `flags`: 0 or [`READ_ONLY`] (maps only).
pub fn open_pin(path: &Path, flags: u32) -> io::Result<OwnedFd> {
    let path = object(path)?;
    let fd = bpf(OBJ_GET, &mut Object { path: path.as_ptr() as u64, fd: 0, flags })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Pins an object.
pub fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = object(path)?;
    bpf(OBJ_PIN, &mut Object { path: path.as_ptr() as u64, fd: fd.as_raw_fd() as u32, flags: 0 }).map(drop)
}

#[repr(C)]
struct LinkCreate {
    program: u32,
    /// Or the control group's descriptor: both are the target.
    ifindex: u32,
    attach_type: u32,
    flags: u32,
    rest: [u64; 6],
}

/// Attaches an XDP program to an interface of this thread's network namespace. `flags`: `XDP_FLAGS_*`.
pub fn link_xdp(program: BorrowedFd<'_>, ifindex: u32, flags: u32) -> io::Result<OwnedFd> {
    let mut attribute = LinkCreate { program: program.as_raw_fd() as u32, ifindex, attach_type: ATTACH_XDP, flags, rest: [0; 6] };
    let fd = bpf(LINK_CREATE, &mut attribute)?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a classifier to what comes in at an interface of this thread's network namespace, in front of those that are there. Linux 6.6.
pub fn link_tcx(program: BorrowedFd<'_>, ifindex: u32) -> io::Result<OwnedFd> {
    const BEFORE: u32 = 1 << 3;
    let program = program.as_raw_fd() as u32;
    let fd = bpf(LINK_CREATE, &mut LinkCreate { program, ifindex, attach_type: ATTACH_TCX_INGRESS, flags: BEFORE, rest: [0; 6] })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Most classifiers that one interface takes (`BPF_MPROG_MAX`).
const CLASSIFIERS_MAX: usize = 64;

#[repr(C)]
struct Query {
    ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    zero: u32,
    program_flags: u64,
    links: u64,
    link_flags: u64,
    revision: u64,
}

/// Ids of the links by which classifiers are attached to what comes in at an interface of this thread's network namespace.
pub fn tcx_links(ifindex: u32) -> io::Result<Vec<u32>> {
    let (mut programs, mut links) = ([0u32; CLASSIFIERS_MAX], [0u32; CLASSIFIERS_MAX]);
    let mut query = Query {
        ifindex,
        attach_type: ATTACH_TCX_INGRESS,
        query_flags: 0,
        attach_flags: 0,
        programs: programs.as_mut_ptr() as u64,
        count: CLASSIFIERS_MAX as u32,
        zero: 0,
        program_flags: 0,
        links: links.as_mut_ptr() as u64,
        link_flags: 0,
        revision: 0,
    };
    match bpf(PROG_QUERY, &mut query) {
        Ok(_) => Ok(links.into_iter().take(query.count as usize).filter(|id| *id != 0).collect()),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Attaches a program to a control group; others there stay. `attach_type`: of `enum bpf_attach_type`.
pub fn link_cgroup(program: BorrowedFd<'_>, group: BorrowedFd<'_>, attach_type: u32) -> io::Result<OwnedFd> {
    let (program, ifindex) = (program.as_raw_fd() as u32, group.as_raw_fd() as u32);
    let fd = bpf(LINK_CREATE, &mut LinkCreate { program, ifindex, attach_type, flags: 0, rest: [0; 6] })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[repr(C)]
struct LinkUpdate {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

/// Swaps a link's program; no packet sees neither.
pub fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attribute = LinkUpdate { link: link.as_raw_fd() as u32, program: program.as_raw_fd() as u32, flags: 0, old_program: 0 };
    bpf(LINK_UPDATE, &mut attribute).map(drop)
}

/// Detaches a link, now: letting go of its last descriptor or pin only queues the work.
pub fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    bpf(LINK_DETACH, &mut (link.as_raw_fd() as u32)).map(drop)
}

/// Where on a packet's way in a link has its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// XDP.
    Xdp,
    /// TCX, ingress.
    Tcx,
}

/// What the kernel says about a link to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    /// Its hook; `None` for other kinds of links.
    pub hook: Option<Hook>,
    /// Its own id.
    pub id: u32,
    /// The program's id.
    pub program_id: u32,
    /// The interface; 0 when it is gone.
    pub ifindex: u32,
}

#[repr(C)]
struct InfoByFd {
    fd: u32,
    length: u32,
    info: u64,
}

/// `struct bpf_link_info`: type, id, prog_id, padding, then a union by type.
fn raw_link_info(link: BorrowedFd<'_>) -> io::Result<[u32; 32]> {
    let mut info = [0u32; 32];
    let mut attribute = InfoByFd { fd: link.as_raw_fd() as u32, length: size_of_val(&info) as u32, info: info.as_mut_ptr() as u64 };
    bpf(OBJ_GET_INFO_BY_FD, &mut attribute)?;
    Ok(info)
}

/// Reads the info of a link to an interface: its union starts with the interface, for TCX followed by the attach type.
pub fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let [kind, id, program_id, _, ifindex, attach_type, ..] = raw_link_info(link)?;
    let hook = match (kind, attach_type) {
        (LINK_XDP, _) => Some(Hook::Xdp),
        (LINK_TCX, ATTACH_TCX_INGRESS) => Some(Hook::Tcx),
        _ => None,
    };
    Ok(LinkInfo { hook, id, program_id, ifindex })
}

/// The id of a cgroup link's control group (the inode of its directory); 0 when that is gone.
pub fn link_cgroup_id(link: BorrowedFd<'_>) -> io::Result<u64> {
    let info = raw_link_info(link)?;
    Ok(info[4] as u64 | (info[5] as u64) << 32)
}

#[repr(C)]
struct TestRun {
    program: u32,
    return_value: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration_ns: u32,
    rest: [u64; 5],
}

/// Runs an XDP program once over a packet (at least 14 bytes), without an interface. Its return value.
pub fn test_run(program: BorrowedFd<'_>, packet: &[u8]) -> io::Result<u32> {
    test_run_repeated(program, packet, 1).map(|(result, _)| result)
}

/// The same, repeated. The last return value, and the mean time of a run, ns, by the kernel's timer (it leaves out what others ran in between).
pub fn test_run_repeated(program: BorrowedFd<'_>, packet: &[u8], repeat: u32) -> io::Result<(u32, u32)> {
    let mut attribute = TestRun {
        program: program.as_raw_fd() as u32,
        return_value: 0,
        size_in: packet.len() as u32,
        size_out: 0,
        data_in: packet.as_ptr() as u64,
        data_out: 0,
        repeat,
        duration_ns: 0,
        rest: [0; 5],
    };
    bpf(PROG_TEST_RUN, &mut attribute)?;
    Ok((attribute.return_value, attribute.duration_ns))
}
