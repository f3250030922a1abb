//! Being measured: what `peerage bench` asks of a node, served where [`NodeBuilder::serve_bench`] says so.
//!
//! What is measured is what applications use: raw streams ([`Node::accept`]), channels, requests. A peer asks for a *run* first ([`RUN`]) and is told what it
//! may move and for how long. Everything after that is charged to its run, each message, stream and request as [`LEAST_CHARGE`] bytes at least, so that many
//! small things are no way around it; what `/perf/1.0.0` moves is charged too, where that is served. [`BenchLimits`] bounds the run, the runs at once, and what all of
//! them move in an hour. So this costs the node what its operator has granted and no more, whoever asks; nobody is sent more than was asked for over a connection that
//! proves the asker's address.
//!
//! | name | what it is | what the node does |
//! | --- | --- | --- |
//! | [`RUN`] | request, `RunRequest` of `proto/bench.proto` | begins a run |
//! | [`STREAM`] | raw stream | reads to the end, answers with the number of bytes as a big-endian `u64` |
//! | [`MESSAGES`] | channel | counts |
//! | [`COUNT`] | request, `CountRequest` | tells the count, once it has reached what is asked or after [`COUNT_PATIENCE`] |
//! | [`ECHO`] | channel | sends each message back |
//! | [`REQUEST`] | request | answers with the question |
//!
//! [`NodeBuilder::serve_bench`]: crate::NodeBuilder::serve_bench
//! [`Node::accept`]: crate::Node::accept

mod ledger;
mod serve;

use std::time::Duration;

pub(crate) use ledger::Ledger;
pub(crate) use serve::start;

/// The request that begins a run.
pub const RUN: &str = "/peerage/bench/run/1";
/// The raw stream that is read to its end and counted.
pub const STREAM: &str = "/peerage/bench/stream/1";
/// The channel whose messages are counted.
pub const MESSAGES: &str = "/peerage/bench/messages/1";
/// The request that tells how many have come.
pub const COUNT: &str = "/peerage/bench/count/1";
/// The channel whose messages are sent back.
pub const ECHO: &str = "/peerage/bench/echo/1";
/// The request that is answered by itself.
pub const REQUEST: &str = "/peerage/bench/request/1";

/// What each message, stream and request is charged at least, in bytes.
pub const LEAST_CHARGE: u64 = 256;
/// How long a count that is not reached is waited for.
pub const COUNT_PATIENCE: Duration = Duration::from_secs(5);
/// The longest request, and the longest message that is sent back.
pub const MAX_ECHO_BYTES: usize = 64 * 1024;
/// What may come on the channels after a run has ended, because it was on its way. A peer that sends more is penalised, and banned when it goes on.
pub const MAX_LATE_BYTES: u64 = 16 * 1024 * 1024;

/// What being measured may cost.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BenchLimits {
    /// Peers that measure at once; more are refused. Default: 4.
    pub max_runs: usize,
    /// What one run may move, in bytes both ways. Default: 32 GiB.
    pub max_run_bytes: u64,
    /// How long one run may last. Default: 10 min.
    pub max_run_time: Duration,
    /// A run on which nothing moves for so long is over, and its stream is ended; a peer whose run was ended by a limit has a new one after as long. Default: 30 s.
    pub idle_timeout: Duration,
    /// What all runs may move in an hour, in bytes. Default: 128 GiB.
    pub bytes_per_hour: u64,
}

impl Default for BenchLimits {
    fn default() -> Self {
        Self {
            max_runs: 4,
            max_run_bytes: 32 << 30,
            max_run_time: Duration::from_secs(600),
            idle_timeout: Duration::from_secs(30),
            bytes_per_hour: 128 << 30,
        }
    }
}

impl BenchLimits {
    /// Checks that each limit leaves room for anything.
    ///
    /// # Errors
    /// A sentence that names the limit.
    pub fn validate(&self) -> Result<(), String> {
        if !(1..=1024).contains(&self.max_runs) {
            return Err(format!("the limit max_runs of bench is {}: give 1 to 1024", self.max_runs));
        }
        for (name, bytes) in [("max_run_bytes", self.max_run_bytes), ("bytes_per_hour", self.bytes_per_hour)]
        {
            if !(LEAST_CHARGE..=1 << 50).contains(&bytes) {
                return Err(format!(
                    "the limit {name} of bench is {bytes}: give {LEAST_CHARGE} bytes to 1 PiB"
                ));
            }
        }
        let (least, most) = (Duration::from_millis(100), Duration::from_secs(24 * 3600));
        for (name, time) in [("max_run_time", self.max_run_time), ("idle_timeout", self.idle_timeout)] {
            if time < least || time > most {
                return Err(format!("the limit {name} of bench is {time:?}: give {least:?} to {most:?}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_leave_no_room_are_refused_by_name() {
        BenchLimits::default().validate().unwrap();
        let none = BenchLimits { max_runs: 0, ..BenchLimits::default() };
        assert!(none.validate().unwrap_err().contains("max_runs of bench is 0"));
        let none = BenchLimits { bytes_per_hour: 0, ..BenchLimits::default() };
        assert!(none.validate().unwrap_err().contains("bytes_per_hour"));
        let endless = BenchLimits { max_run_time: Duration::MAX, ..BenchLimits::default() };
        assert!(endless.validate().unwrap_err().contains("max_run_time"));
    }
}
