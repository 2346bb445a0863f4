//! A client's bytes, and the descriptors that come beside them.

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{ControlMessageOwned, MsgFlags, recvmsg},
};
use std::{
    fs::File,
    io::{self, IoSliceMut, Read},
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    os::unix::{fs::FileTypeExt, net::UnixStream},
};

/// Descriptors that one message may bring; the kernel closes those that don't fit.
const DESCRIPTORS_MAX: usize = 2;

/// Whether the other end of a connection, or of a terminal, is closed. One that only writes no more may still read.
pub fn hung_up(end: impl AsFd) -> bool {
    let mut ends = [PollFd::new(end.as_fd(), PollFlags::empty())];
    poll(&mut ends, PollTimeout::ZERO).is_ok() && ends[0].any().unwrap_or(true)
}

/// A text that a client hands over, to be read while the client is there: the writer of a pipe may never come to an end.
pub struct Text<'a> {
    file: File,
    client: &'a UnixStream,
}

impl<'a> Text<'a> {
    /// What this descriptor, which came from this client, gives to read.
    pub fn new(descriptor: OwnedFd, client: &'a UnixStream) -> Text<'a> {
        Text { file: File::from(descriptor), client }
    }

    /// Whether it is a terminal, or another device that is read byte by byte: what is typed there is meant for somebody else.
    pub fn is_terminal(&self) -> bool {
        self.file.metadata().is_ok_and(|data| data.file_type().is_char_device())
    }
}

impl Read for Text<'_> {
    /// Waits for the text or for the client's end, which is an error.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let text = PollFd::new(self.file.as_fd(), PollFlags::POLLIN);
            let mut ready = [text, PollFd::new(self.client.as_fd(), PollFlags::empty())];
            poll(&mut ready, PollTimeout::NONE)?;
            if ready[1].any().unwrap_or(true) {
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "whoever handed it over has hung up"));
            }
            match self.file.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {} // somebody else was faster
                read => return read,
            }
        }
    }
}

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
