//! What an interface says about its XDP program: one RTM_GETLINK request, read by hand.

use std::{
    io,
    mem::size_of,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

/// An interface's XDP state, read back from the kernel: what was asked for is not always what one gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XdpState {
    /// Mode; `None` if nothing is attached.
    pub mode: Option<XdpMode>,
    /// Id of the attached program, 0 if none.
    pub program_id: u32,
    /// What kind of hardware it is (`ARPHRD_*`): tells whether frames begin with an Ethernet header.
    pub hardware: u16,
}

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver, before the kernel allocates a socket buffer.
    Native,
    /// After it.
    Generic,
    /// On the network card.
    Offloaded,
}

impl XdpMode {
    /// The word in metrics and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            XdpMode::Native => "native",
            XdpMode::Generic => "generic",
            XdpMode::Offloaded => "offloaded",
        }
    }
}

const IFLA_XDP: u16 = 43;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
const NETLINK_ROUTE: libc::c_int = 0;
const RTM_GETLINK: u16 = 18;
const RTM_NEWLINK: u16 = 16;

#[repr(C)]
struct Request {
    length: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
    family: u8,
    pad: u8,
    device: u16,
    ifindex: i32,
    device_flags: u32,
    change: u32,
}

/// Reads the XDP state of an interface in this thread's network namespace.
pub fn xdp_state(ifindex: u32) -> io::Result<XdpState> {
    // SAFETY: plain socket call; the descriptor is owned below.
    let raw = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, NETLINK_ROUTE) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: new and ours.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    let request = Request {
        length: size_of::<Request>() as u32,
        kind: RTM_GETLINK,
        flags: 1, // NLM_F_REQUEST
        sequence: 1,
        port: 0,
        family: libc::AF_UNSPEC as u8,
        pad: 0,
        device: 0,
        ifindex: ifindex as i32,
        device_flags: 0,
        change: 0,
    };
    // SAFETY: the pointer is valid for the length.
    let sent = unsafe { libc::send(socket.as_raw_fd(), std::ptr::from_ref(&request).cast(), size_of::<Request>(), 0) };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut answer = vec![0u8; 32 * 1024];
    // SAFETY: the buffer is valid for its length.
    let got = unsafe { libc::recv(socket.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0) };
    if got < 0 {
        return Err(io::Error::last_os_error());
    }
    answer.truncate(got as usize);
    parse(&answer)
}

fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn half(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

/// The payload of the first attribute of this kind.
fn attribute(mut bytes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let length = half(bytes, 0)? as usize;
        let found = half(bytes, 2)? & 0x3fff;
        let payload = bytes.get(4..length)?;
        if found == kind {
            return Some(payload);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
}

/// Reads an RTM_NEWLINK (or error) message.
fn parse(message: &[u8]) -> io::Result<XdpState> {
    let truncated = || io::Error::new(io::ErrorKind::InvalidData, "truncated netlink answer");
    let kind = half(message, 4).ok_or_else(truncated)?;
    if kind != RTM_NEWLINK {
        let errno = word(message, 16).ok_or_else(truncated)? as i32;
        return Err(io::Error::from_raw_os_error(-errno));
    }
    // 16 bytes of message header, 16 of interface.
    let attributes = message.get(32..).ok_or_else(truncated)?;
    let hardware = half(message, 18).ok_or_else(truncated)?;
    let Some(xdp) = attribute(attributes, IFLA_XDP) else { return Ok(XdpState { hardware, ..XdpState::default() }) };
    let mode = match attribute(xdp, IFLA_XDP_ATTACHED).and_then(|payload| payload.first().copied()) {
        Some(1) => Some(XdpMode::Native),
        Some(2) => Some(XdpMode::Generic),
        Some(3) => Some(XdpMode::Offloaded),
        _ => None,
    };
    let program_id = attribute(xdp, IFLA_XDP_PROG_ID).and_then(|payload| word(payload, 0)).unwrap_or(0);
    Ok(XdpState { mode, program_id, hardware })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn loopback_has_no_program() {
        assert_eq!(xdp_state(1).unwrap(), XdpState { hardware: libc::ARPHRD_LOOPBACK, ..XdpState::default() });
        assert!(xdp_state(0x7fff_fff0).is_err());
    }

    proptest! {
        #[test]
        fn any_answer_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200), newlink: bool) {
            let mut bytes = bytes;
            if newlink && bytes.len() > 6 {
                bytes[4..6].copy_from_slice(&RTM_NEWLINK.to_ne_bytes());
            }
            let _ = parse(&bytes);
        }
    }
}
