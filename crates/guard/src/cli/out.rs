//! The standard output, and a reader of it that has read enough: `ebpf-guard bans | head`.

use std::io::{self, ErrorKind, StdoutLock, Write};

/// Why nothing more can be printed.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads the standard output any more")]
struct ReaderGone;

/// The standard output, or in tests what stands for it. A broken pipe here is told from any other: [`reader_gone`].
pub struct Out<W = StdoutLock<'static>>(W);

/// The standard output.
pub fn stdout() -> Out {
    Out(io::stdout().lock())
}

/// Whether a command ended because the reader of its output did: nothing has failed.
pub fn reader_gone(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    cause.is_some_and(|cause| cause.is::<ReaderGone>())
}

fn told(error: io::Error) -> io::Error {
    if error.kind() == ErrorKind::BrokenPipe { io::Error::new(ErrorKind::BrokenPipe, ReaderGone) } else { error }
}

impl<W: Write> Write for Out<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(told)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    /// Fails as it is told to.
    struct Fails(ErrorKind);

    impl Write for Fails {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }

    #[test]
    fn only_the_reader_of_the_standard_output_may_go() {
        let gone = |result: io::Result<()>| reader_gone(&result.context("printing").unwrap_err());
        let (mut broken, mut full) = (Out(Fails(ErrorKind::BrokenPipe)), Out(Fails(ErrorKind::StorageFull)));
        assert!(gone(writeln!(broken, "{}", 1)) && gone(broken.flush()));
        assert!(!gone(writeln!(full, "{}", 1)) && !gone(full.flush()));
        assert!(!gone(writeln!(Fails(ErrorKind::BrokenPipe), "ready")), "another pipe");
    }
}
