//! Maps of any layout: what they are made of, and their rows as bytes.

use super::{InfoByFd, MAP_GET_NEXT_KEY, MAP_LOOKUP_ELEM, MAP_UPDATE_ELEM, OBJ_GET_INFO_BY_FD, bpf, element};
use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// What a map is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Its kind (`enum bpf_map_type`).
    pub kind: u32,
    /// Bytes of a key.
    pub key: u32,
    /// Bytes of a value (in a map of CPUs: of each CPU's).
    pub value: u32,
    /// Entries that it has room for.
    pub entries: u32,
}

/// The shape of a map.
pub fn shape(map: BorrowedFd<'_>) -> io::Result<Shape> {
    // struct bpf_map_info: type, id, key_size, value_size, max_entries.
    let mut info = [0u32; 32];
    let mut attribute = InfoByFd { fd: map.as_raw_fd() as u32, length: size_of_val(&info) as u32, info: info.as_mut_ptr() as u64 };
    bpf(OBJ_GET_INFO_BY_FD, &mut attribute)?;
    let [kind, _, key, value, entries, ..] = info;
    Ok(Shape { kind, key, value, entries })
}

/// Entries that a map has room for.
pub fn map_entries(map: BorrowedFd<'_>) -> io::Result<u32> {
    shape(map).map(|shape| shape.entries)
}

/// A map, as bytes of keys and values of the sizes that the kernel itself names. Not for maps of CPUs.
pub struct Bytes<'a> {
    map: BorrowedFd<'a>,
    shape: Shape,
}

impl Bytes<'_> {
    /// Of this map.
    pub fn new(map: BorrowedFd<'_>) -> io::Result<Bytes<'_>> {
        const PER_CPU: [u32; 4] = [5, 6, 10, 21]; // hash, array, LRU, storage of a control group
        let shape = shape(map)?;
        match PER_CPU.contains(&shape.kind) {
            true => Err(io::ErrorKind::Unsupported.into()),
            false => Ok(Bytes { map, shape }),
        }
    }

    /// Its shape.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The key after this one, or the first.
    pub fn next(&self, key: Option<&[u8]>) -> io::Result<Option<Vec<u8>>> {
        let key = key.map(|key| self.fits(key, self.shape.key)).transpose()?;
        let mut next = vec![0; self.shape.key as usize];
        match bpf(MAP_GET_NEXT_KEY, &mut element(self.map, key.map_or(std::ptr::null(), <[u8]>::as_ptr), next.as_mut_ptr())) {
            Ok(_) => Ok(Some(next)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let key = self.fits(key, self.shape.key)?;
        // The kernel writes whole eights.
        let mut value = vec![0; self.shape.value.next_multiple_of(8) as usize];
        match bpf(MAP_LOOKUP_ELEM, &mut element(self.map, key.as_ptr(), value.as_mut_ptr())) {
            Ok(_) => {
                value.truncate(self.shape.value as usize);
                Ok(Some(value))
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Inserts or replaces.
    pub fn set(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let (key, value) = (self.fits(key, self.shape.key)?, self.fits(value, self.shape.value)?);
        bpf(MAP_UPDATE_ELEM, &mut element(self.map, key.as_ptr(), value.as_ptr())).map(drop)
    }

    fn fits<'b>(&self, bytes: &'b [u8], size: u32) -> io::Result<&'b [u8]> {
        if bytes.len() == size as usize { Ok(bytes) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }
}
