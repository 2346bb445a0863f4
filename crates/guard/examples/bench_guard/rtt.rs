//! A TCP round trip over a veth pair: with a guard that enforces, its default probes attached and the flow known, and without.

use crate::{
    bed::{self, Bed, INSIDE, OUTSIDE, PORT},
    report::Report,
};
use anyhow::Context;
use guard::{FlowKind, Protocol, Request};
use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    time::Instant,
};

const PAIRS: usize = 15;
/// Fewer packets than a known flow may send at once: its budget is not what is measured.
const ROUNDS: usize = 6_000;
/// The first ones warm caches and windows up.
const WARM_UP: usize = 500;
const BYTES: usize = 64;

/// p50 of the round trips of one connection, µs. `known` is told the client's address before the first.
fn round_trips(bed: &Bed, known: impl FnOnce(SocketAddr) -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let listener = bed.inside.inside(|| Ok(TcpListener::bind((INSIDE, PORT))?))?;
    std::thread::scope(|scope| {
        let echo = scope.spawn(|| -> anyhow::Result<()> {
            bed::pin(0, 1)?;
            let (mut stream, _) = listener.accept()?;
            stream.set_nodelay(true)?;
            let mut buffer = [0; BYTES];
            loop {
                match stream.read_exact(&mut buffer) {
                    Ok(()) => stream.write_all(&buffer)?,
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
                    Err(error) => return Err(error.into()),
                }
            }
        });
        let mut stream = bed.outside.inside(|| Ok(TcpStream::connect((INSIDE, PORT))?))?;
        stream.set_nodelay(true)?;
        known(stream.local_addr()?)?;
        bed::pin(0, 0)?;
        let mut buffer = [0; BYTES];
        let mut once = || -> anyhow::Result<f64> {
            let start = Instant::now();
            stream.write_all(&buffer)?;
            stream.read_exact(&mut buffer)?;
            Ok(start.elapsed().as_secs_f64() * 1e6)
        };
        let all: Vec<f64> = (0..ROUNDS).map(|_| once()).collect::<anyhow::Result<_>>()?;
        drop(stream);
        echo.join().unwrap()?;
        let mut times = all[WARM_UP..].to_vec();
        times.sort_by(f64::total_cmp);
        Ok(times[times.len() / 2])
    })
}

const NAME: &str = "tcp_rtt_guarded_over_bare";

pub fn measure(report: &mut Report, guard: &Path) {
    if let Err(error) = rounds(report, guard) {
        report.missing(NAME, &error);
    }
}

fn rounds(report: &mut Report, program: &Path) -> anyhow::Result<()> {
    let bed = Bed::new()?;
    let (mut guarded, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        let mut guard = bed.start(program, &[])?;
        guarded.push(round_trips(&bed, |client| {
            let address = OUTSIDE.parse().context("an address")?;
            let (class, label) = (FlowKind::Known, "bench".into());
            guard.client()?.ask(&Request::FlowAdd {
                protocol: Protocol::Tcp,
                address,
                port: client.port(),
                class,
                label,
                stake_ppm: None,
            })?;
            Ok(())
        })?);
        drop(guard);
        bare.push(round_trips(&bed, |_| Ok(()))?);
    }
    report.add(NAME, "ratio", guarded.iter().zip(&bare).map(|(guarded, bare)| guarded / bare).collect());
    report.add("tcp_rtt_guarded_us", "us", guarded);
    report.add("tcp_rtt_bare_us", "us", bare);
    Ok(())
}
