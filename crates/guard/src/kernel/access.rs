//! Who may change something over the socket: root, and the users and groups that the operator names.

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use std::{
    io,
    os::{fd::AsRawFd, unix::net::UnixStream},
};

/// Groups of a caller that are looked at.
const GROUPS_MAX: usize = 256;
/// `SO_PEERGROUPS` of socket(7): the supplementary groups of the process at the other end.
const SO_PEERGROUPS: libc::c_int = 59;

/// Users and groups, beside root, that may ban, announce flows, switch modes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// User ids.
    pub uids: Vec<u32>,
    /// Group ids; a caller's supplementary groups count as well.
    pub gids: Vec<u32>,
}

/// The process at the other end of a connection, as it was when it connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its user.
    pub uid: u32,
    /// Its groups.
    pub gids: Vec<u32>,
}

impl Caller {
    /// Asks the kernel who connected.
    pub fn of(stream: &UnixStream) -> io::Result<Caller> {
        let credentials = getsockopt(stream, PeerCredentials)?;
        let mut gids = vec![0u32; GROUPS_MAX];
        let mut length = (gids.len() * size_of::<u32>()) as libc::socklen_t;
        // SAFETY: the buffer is valid for `length` bytes, and the kernel says how many it has written.
        let result = unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::SOL_SOCKET,
                SO_PEERGROUPS,
                gids.as_mut_ptr().cast(),
                std::ptr::from_mut(&mut length),
            )
        };
        // A caller in more groups than we look at is known by its first one only: that grants less, never more.
        gids.truncate(if result == 0 { length as usize / size_of::<u32>() } else { 0 });
        gids.push(credentials.gid());
        Ok(Caller { uid: credentials.uid(), gids })
    }
}

impl Access {
    /// Whether this caller may write.
    pub fn allows(&self, caller: &Caller) -> bool {
        caller.uid == 0 || self.uids.contains(&caller.uid) || caller.gids.iter().any(|gid| self.gids.contains(gid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_users_and_groups() {
        let access = Access { uids: vec![1000], gids: vec![50] };
        let check = |uid, gids: &[u32], expect| assert_eq!(access.allows(&Caller { uid, gids: gids.to_vec() }), expect);
        check(0, &[], true);
        check(1000, &[], true);
        check(1001, &[7, 50], true);
        check(1001, &[7], false);
        assert!(!Access::default().allows(&Caller { uid: 1000, gids: vec![0] }), "the group root is not the user root");
    }

    #[test]
    fn a_caller_is_known_by_the_kernel() {
        let (here, _there) = UnixStream::pair().unwrap();
        let caller = Caller::of(&here).unwrap();
        assert_eq!(caller.uid, nix::unistd::geteuid().as_raw());
        assert!(caller.gids.contains(&nix::unistd::getegid().as_raw()));
    }
}
