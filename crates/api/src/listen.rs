//! The socket: one of our own, or one that a parent passes on (systemd's protocol, sd_listen_fds(3)).
//!
//! A parent that holds the socket can put the node into a network namespace of its own and still have its API on the host's
//! loopback: a socket belongs to the namespace that made it.

use std::net::SocketAddr;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{getsockopt, sockopt};
use tokio::net::TcpListener;

/// The first descriptor that is passed on.
const LISTEN_FDS_START: RawFd = 3;

/// Why there is no socket to serve on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// `LISTEN_FDS` is set for this process, but is not 1.
    #[error("LISTEN_FDS is {0:?}, exactly 1 socket is expected")]
    Count(String),
    /// The descriptor is not a listening TCP socket.
    #[error("descriptor 3 of LISTEN_FDS is not a listening TCP socket")]
    NotListening,
    /// It could not be set up.
    #[error("socket of LISTEN_FDS could not be set up")]
    Passed(#[source] std::io::Error),
    /// The address could not be bound.
    #[error("could not listen on {address}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// The passed socket if `LISTEN_PID` names this process, else one bound to `address`. Call it once, early: descriptor 3 is
/// taken as passed on the word of the environment.
///
/// # Errors
/// [`ListenError`].
pub async fn listener(address: SocketAddr) -> Result<TcpListener, ListenError> {
    match passed(std::env::var("LISTEN_PID").ok(), std::env::var("LISTEN_FDS").ok(), std::process::id())? {
        Some(raw) => adopt(raw),
        None => TcpListener::bind(address).await.map_err(|source| ListenError::Bind { address, source }),
    }
}

/// Whether a descriptor was passed to the process `me`: the variables may be another's, inherited.
fn passed(listen_pid: Option<String>, listen_fds: Option<String>, me: u32) -> Result<Option<RawFd>, ListenError> {
    let for_me = listen_pid.and_then(|text| text.parse::<u32>().ok()) == Some(me);
    match listen_fds {
        Some(count) if for_me && count == "1" => Ok(Some(LISTEN_FDS_START)),
        Some(count) if for_me => Err(ListenError::Count(count)),
        _ => Ok(None),
    }
}

fn adopt(raw: RawFd) -> Result<TcpListener, ListenError> {
    // Asked before it is owned: closing somebody else's descriptor would be worse than refusing it.
    if fcntl_flags(raw).is_err() {
        return Err(ListenError::NotListening);
    }
    // SAFETY: the descriptor is open (checked above), and the parent gave it to this process alone (LISTEN_PID, checked by
    // the caller), so nothing else here owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    let is_listening = getsockopt(&fd, sockopt::AcceptConn).unwrap_or(false);
    if !is_listening {
        return Err(ListenError::NotListening);
    }
    // Ours alone: a child must not inherit it.
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(|errno| ListenError::Passed(errno.into()))?;
    let socket = std::net::TcpListener::from(fd);
    socket.set_nonblocking(true).map_err(ListenError::Passed)?;
    socket.local_addr().map_err(|_| ListenError::NotListening)?;
    TcpListener::from_std(socket).map_err(ListenError::Passed)
}

fn fcntl_flags(raw: RawFd) -> Result<(), ListenError> {
    // SAFETY: borrowed for one call that only reads the descriptor's flags; a closed one gives EBADF.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(raw) };
    fcntl(fd, FcntlArg::F_GETFD).map(|_| ()).map_err(|errno| ListenError::Passed(errno.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Option<String> {
        Some(value.to_owned())
    }

    #[test]
    fn only_variables_for_this_process_count() {
        assert!(matches!(passed(text("7"), text("1"), 7), Ok(Some(3))));
        assert!(matches!(passed(text("8"), text("1"), 7), Ok(None)), "inherited from another process");
        assert!(matches!(passed(None, text("1"), 7), Ok(None)));
        assert!(matches!(passed(text("7"), None, 7), Ok(None)));
        assert!(matches!(passed(text("7"), text("2"), 7), Err(ListenError::Count(_))));
        assert!(matches!(passed(text("7"), text("x"), 7), Err(ListenError::Count(_))));
    }

    #[tokio::test]
    async fn only_a_listening_socket_is_adopted() {
        use std::os::fd::IntoRawFd;
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let adopted = adopt(socket.into_raw_fd()).unwrap();
        assert_eq!(adopted.local_addr().unwrap(), address);
        let client = std::net::TcpStream::connect(address).unwrap();
        assert!(matches!(adopt(client.into_raw_fd()), Err(ListenError::NotListening)), "a connected socket");
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(matches!(adopt(file.into_raw_fd()), Err(ListenError::NotListening)), "a file");
        assert!(matches!(adopt(1 << 20), Err(ListenError::NotListening)), "a closed descriptor");
    }
}
