//! The socket: who has a place there, and what ends when a caller leaves.

use crate::support::{Lab, PATIENCE, Running, until};
use guard::{
    Client, ClientError, ErrorCode, Request, Response,
    kernel::{
        events::SUBSCRIBERS_MAX,
        seats::{GUESTS_MAX, SEATS_MAX},
    },
    protocol::ListInfo,
};
use std::{
    fs::File,
    io::{PipeWriter, Read, Write},
    os::{
        fd::{AsFd, AsRawFd},
        unix::net::UnixStream,
    },
    process::Command,
};

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

/// Bytes that wait in a pipe.
fn unread(pipe: &PipeWriter) -> libc::c_int {
    let mut bytes = 0;
    // SAFETY: the call writes one number, which outlives it.
    let done = unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    bytes
}

/// Loads a text by its descriptor.
fn load(guard: &Running, name: &str, text: &File) -> Result<ListInfo, (ErrorCode, String)> {
    let request = Request::ListLoad { name: name.into(), ttl_ms: 600_000, skip_bad: false };
    match guard.client().load_list(&request, text.as_fd()) {
        Ok(list) => Ok(list),
        Err(ClientError::Refused { code, message }) => Err((code, message)),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_text_without_an_end_is_read_no_longer_than_its_client_lives() {
    let Some(lab) = Lab::new("a_text_without_an_end_is_read_no_longer_than_its_client_lives") else { return };
    let guard = lab.start(&[]);
    let path = lab.folder.path().join("list.txt");
    std::fs::write(&path, "198.51.100.0/24\n").unwrap();
    let whole = || load(&guard, "whole", &File::open(&path).unwrap());
    let (text, mut writer) = std::io::pipe().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ebpf-guard"));
    let mut client = command.args(["list", "load", "endless", "-", "--socket"]).arg(lab.socket()).stdin(text).spawn().unwrap();
    writer.write_all(b"192.0.2.0/24\n").unwrap();
    until("the reading of the endless text", || (unread(&writer) == 0).then_some(()));
    assert!(matches!(whole(), Err((ErrorCode::Limit, _))), "one list is read at a time");
    client.kill().unwrap();
    client.wait().unwrap();
    until("the end of the reading", || whole().ok());
    let Response::Lists { lists } = guard.ask(&Request::Lists {}) else { panic!() };
    assert_eq!(lists.iter().map(|list| list.name.as_str()).collect::<Vec<_>>(), ["whole"]);
    drop(writer);
    lab.detach();
}

#[test]
fn a_terminal_is_no_text() {
    let Some(lab) = Lab::new("a_terminal_is_no_text") else { return };
    let guard = lab.start(&[]);
    let (_keys, line) = crate::terminal::pair((24, 80));
    for text in [line, File::open("/dev/zero").unwrap()] {
        let (code, message) = load(&guard, "typed", &text).unwrap_err();
        assert!(code == ErrorCode::BadRequest && message.contains("not from a terminal"), "{message}");
    }
}
