//! The socket: who has a place there, and what ends when a caller leaves.

use crate::support::{Lab, PATIENCE, until};
use guard::{
    Client, ClientError, ErrorCode,
    kernel::{
        events::SUBSCRIBERS_MAX,
        seats::{GUESTS_MAX, SEATS_MAX},
    },
};
use std::{io::Read, os::unix::net::UnixStream};

/// Works as a user who may change nothing.
fn as_guest<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    const ID: libc::c_long = 54_321;
    std::thread::scope(|scope| {
        let guest = scope.spawn(|| {
            // SAFETY: plain system calls, without the library's that change all threads.
            let changed = unsafe {
                libc::syscall(libc::SYS_setresgid, ID, ID, ID) == 0 && libc::syscall(libc::SYS_setresuid, ID, ID, ID) == 0
            };
            assert!(changed, "{}", std::io::Error::last_os_error());
            work()
        });
        guest.join().unwrap()
    })
}

#[test]
fn silent_guests_lock_nobody_out_who_may_write() {
    let Some(lab) = Lab::new("silent_guests_lock_nobody_out_who_may_write") else { return };
    let guard = lab.start(&[]);
    // The folder of a test is its owner's alone.
    std::fs::set_permissions(lab.folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let socket = lab.socket();
    let guests: Vec<UnixStream> = as_guest(|| (0..SEATS_MAX).map(|_| UnixStream::connect(&socket).unwrap()).collect());
    let mut others: Vec<Client> = (GUESTS_MAX..SEATS_MAX).map(|_| guard.client()).collect();
    for client in &mut others {
        client.stats(false).unwrap();
    }
    // Connections are taken in their order: all of the guests were answered for by now.
    for (number, mut guest) in guests.iter().enumerate() {
        let seated = number < GUESTS_MAX;
        guest.set_nonblocking(seated).unwrap();
        guest.set_read_timeout(Some(PATIENCE)).unwrap();
        let read = guest.read(&mut [0]).map_err(|error| error.kind());
        assert_eq!(read, if seated { Err(std::io::ErrorKind::WouldBlock) } else { Ok(0) }, "guest {number}");
    }
    drop(guests);
    until("a guest's seat", || as_guest(|| Client::connect(&socket).unwrap().stats(false).ok()));
}

#[test]
fn subscribers_that_hang_up_give_their_places_back_without_a_drop() {
    let Some(lab) = Lab::new("subscribers_that_hang_up_give_their_places_back_without_a_drop") else { return };
    let guard = lab.start(&[]);
    let subscribe = || {
        let mut client = guard.client();
        client.subscribe().map(|()| client)
    };
    let all: Vec<_> = (0..SUBSCRIBERS_MAX).map(|_| subscribe().unwrap()).collect();
    assert!(matches!(subscribe(), Err(ClientError::Refused { code: ErrorCode::Full, .. })));
    drop(all);
    until("a place", || subscribe().ok());
}
