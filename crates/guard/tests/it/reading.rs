//! What an unprivileged process can do with what it is handed: read, and nothing else.

use crate::support::{Lab, SUSPECT4, ban};
use guard::{Client, ClientError, ErrorCode, Maps, Request};
use kernel_shared::Reason;
use std::os::fd::{AsFd, AsRawFd};
use types::Offence;

const NOBODY: u32 = 65534;

/// Runs a closure on a thread that is user `nobody` (the raw call changes the calling thread only) and has no capability.
fn as_nobody<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: integers only.
            let result = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
            assert_eq!(result, 0);
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
            work()
        });
        thread.join().unwrap()
    })
}

/// A folder that nobody may enter.
fn open_folder(lab: &Lab) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(lab.folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn counters_are_read_without_a_capability_and_cannot_be_written() {
    let Some(lab) = Lab::new("counters_are_read_without_a_capability_and_cannot_be_written") else { return };
    let guard = lab.start(&["--mode", "enforce", "--allow-uid", "65534"]);
    open_folder(&lab);
    let socket = lab.socket();
    let mut line = lab.line4();
    let (maps, infos, descriptors) = as_nobody(|| {
        let mut client = Client::connect(&socket).unwrap();
        let maps = client.maps().unwrap();
        let (infos, descriptors, _, _) = client.map_descriptors().unwrap();
        (maps, infos, descriptors)
    });
    guard.ban(SUSPECT4, 60_000, Offence::BadSignature);
    assert_eq!(line.send(9), 0);
    as_nobody(|| {
        assert_eq!(maps.reason(Reason::BannedBadSignature).packets, 9);
        assert_eq!(maps.dropped()["banned_bad_signature"].bytes, 9 * 49);
        for (info, fd) in infos.iter().zip(&descriptors) {
            let key = [0u8; 32];
            let value = [0xffu8; 256];
            let writes = kernel_write(fd.as_fd().as_raw_fd(), &key, &value);
            assert!(writes.is_err(), "{} could be written", info.name);
            if info.mappable {
                let length = info.bytes as usize;
                // SAFETY: a new mapping of a descriptor; nothing is written through it.
                let writable = unsafe { memmap2::MmapOptions::new().len(length).map_mut(fd) };
                assert!(writable.is_err(), "{} could be mapped for writing", info.name);
            }
        }
    });
    assert_eq!(guard.stats().dropped["banned_bad_signature"], 9);
}

/// BPF_MAP_UPDATE_ELEM with a key and value long enough for every map.
fn kernel_write(fd: i32, key: &[u8; 32], value: &[u8; 256]) -> std::io::Result<()> {
    let attribute = [fd as u64, key.as_ptr() as u64, value.as_ptr() as u64, 0u64];
    // SAFETY: the kernel copies at most the map's key and value size, which both fit.
    let result = unsafe { libc::syscall(libc::SYS_bpf, 2, attribute.as_ptr(), size_of_val(&attribute)) };
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

#[test]
fn only_root_and_allowed_users_change_anything() {
    let Some(lab) = Lab::new("only_root_and_allowed_users_change_anything") else { return };
    let guard = lab.start(&["--mode", "enforce"]);
    open_folder(&lab);
    let socket = lab.socket();
    as_nobody(|| {
        let mut client = Client::connect(&socket).unwrap();
        assert_eq!(client.stats(true).unwrap().mode, "enforce");
        for request in [
            ban(SUSPECT4, 1000, Offence::Manual),
            Request::Mode { mode: "off".into() },
            Request::Budget { name: "rest".into(), rate: 1, burst: 1, for_ms: None },
            Request::TestRun { packet: "00".repeat(60) },
            Request::Enforce { for_ms: 1000 },
            Request::Confirm {},
            Request::Heartbeat {},
            Request::Maps {},
            Request::FlowsClear {},
            Request::Detach {},
            Request::Shutdown {},
        ] {
            match client.ask(&request) {
                Err(ClientError::Refused { code: ErrorCode::Forbidden, message }) => assert!(message.contains("65534")),
                other => panic!("{request:?}: {other:?}"),
            }
        }
    });
    assert_eq!(guard.stats().bans, 0);
}

#[test]
fn nonsense_on_the_socket_is_answered_and_survived() {
    use std::io::{BufRead, BufReader, Write};
    let Some(lab) = Lab::new("nonsense_on_the_socket_is_answered_and_survived") else { return };
    let guard = lab.start(&[]);
    let mut stream = std::os::unix::net::UnixStream::connect(lab.socket()).unwrap();
    stream.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    for nonsense in ["", "{}", "null", "\"x\"", r#"{"request":"ban"}"#, "\u{0}\u{1}", "{\"request\":\"flow_add\",\"port\":99999}"] {
        writeln!(stream, "{nonsense}").unwrap();
        let answer = lines.next().unwrap().unwrap();
        assert!(answer.contains("bad_request"), "{nonsense}: {answer}");
    }
    // A line without end is cut off, not collected for ever.
    let endless = vec![b'a'; 2 * guard::protocol::LINE_BYTES_MAX];
    let _ = stream.write_all(&endless);
    assert_eq!(guard.stats().mode, "shadow");
}

#[test]
fn maps_of_another_layout_are_refused() {
    let Some(lab) = Lab::new("maps_of_another_layout_are_refused") else { return };
    let guard = lab.start(&[]);
    let (infos, descriptors, cpus, hash) = guard.client().map_descriptors().unwrap();
    assert!(Maps::new(infos, descriptors, cpus + 1, &hash).is_err());
}
