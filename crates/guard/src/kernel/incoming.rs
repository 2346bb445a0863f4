//! A client's bytes, and the descriptors that come beside them.

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use std::{
    io::{self, IoSliceMut, Read},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    os::unix::net::UnixStream,
};

/// Descriptors that one message may bring; the kernel closes those that don't fit.
const DESCRIPTORS_MAX: usize = 2;

/// The receiving end of a connection.
pub struct Incoming<'a> {
    stream: &'a UnixStream,
    descriptor: Option<OwnedFd>,
}

impl<'a> Incoming<'a> {
    /// Of a connection.
    pub fn new(stream: &'a UnixStream) -> Incoming<'a> {
        Incoming { stream, descriptor: None }
    }

    /// The descriptor that came last, if nobody took it.
    pub fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptor.take()
    }
}

impl Read for Incoming<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut space = nix::cmsg_space!([i32; DESCRIPTORS_MAX]);
        let mut slices = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(self.stream.as_raw_fd(), &mut slices, Some(&mut space), flags).map_err(io::Error::from)?;
        for control in message.cmsgs().map_err(io::Error::from)? {
            if let ControlMessageOwned::ScmRights(descriptors) = control {
                for descriptor in descriptors {
                    // SAFETY: the kernel has just opened it for us, and nobody else owns it.
                    self.descriptor = Some(unsafe { OwnedFd::from_raw_fd(descriptor) });
                }
            }
        }
        Ok(message.bytes)
    }
}
