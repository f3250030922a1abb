//! What every program that the benchmark compares has in common.
//!
//! A measured program is one executable with two commands:
//!
//! - `PROGRAM serve` starts a server, prints one line that says how to reach it, and serves until its standard input ends;
//! - `PROGRAM drive ADDRESS WORK` connects, does one work once, and prints one JSON line: a [`Report`].
//!
//! A program implements [`Peer`], [`Dialler`] and [`Client`], mostly by saying how a connection is made and a stream is opened, and ends with
//! `peerage_bench_peer::main::<MyPeer>()`. Everything else is here once: what the works are ([`Work`]), how much of each ([`Work::amount`]), the clocks
//! and percentiles, the processor time of both processes over exactly the measured part, the load of the rest of the machine, and the deadlines.
//! The server's half of the streams is [`Service`]; a library that offers something nearer to its users than a stream, such as
//! requests, overrides the method.
//!
//! What a library cannot do is no failure: the method returns [`unsupported`], and the report says so.
//!
//! The programs talk to each other over loopback and trust the driver, but nothing here waits for ever: each step has a deadline, and
//! a run that ends wrongly says which step it was.

mod drive;
mod handshakes;
mod idle;
mod latency;
mod limited;
mod peer;
mod program;
mod report;
mod service;
mod stream;
mod usage;
mod work;

pub use drive::{Drive, drive};
pub use idle::{FIRST_CONNECTIONS, resident_when_idle};
pub use latency::Latency;
pub use limited::within;
pub use peer::{Arrived, Client, Dialler, Echo, Messages, Negotiated, Peer, Priorities, Served};
pub use program::{Command, ServeOptions, main, run, run_command};
pub use report::{Done, Ended, Memory, Report};
pub use service::{Arrivals, Service};
pub use stream::{Io, Kind, Stream};
pub use usage::{Usage, Used, cpu_of, machine_busy, resident_bytes};
pub use work::{Unit, Work};

use std::error::Error;
use std::fmt;

/// Whatever went wrong, as one sentence.
pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Bytes of one bulk write and of one bulk read.
pub const CHUNK: usize = 64 * 1024;
/// Bytes of a joined write: what whoever batches small messages by hand would take.
pub const JOINED: usize = 32 * 1024;
/// Bytes of a ping, of a request, and of its answer.
pub const SHORT: usize = 32;
/// Bytes of a message that has a stream of its own.
pub const SMALL: usize = 64;

/// Says that a library has nothing by which a work could be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported(pub String);

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "does not apply: {}", self.0)
    }
}

impl Error for Unsupported {}

/// The error by which a method of a [`Client`] says that the work does not apply, and why.
pub fn unsupported<T>(why: impl Into<String>) -> Outcome<T> {
    Err(Unsupported(why.into()).into())
}
