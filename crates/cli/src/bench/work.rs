//! What can be measured, by name.

use clap::ValueEnum;

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Work {
    /// Bytes one way on one stream
    #[value(name = "bulk-1")]
    Bulk1,
    /// Bytes one way on eight streams
    #[value(name = "bulk-8")]
    Bulk8,
    /// Messages of 64 bytes one way on one channel
    #[value(name = "msgs-64")]
    Msgs64,
    /// Messages of 1 KiB
    #[value(name = "msgs-1k")]
    Msgs1k,
    /// Messages of 64 KiB
    #[value(name = "msgs-64k")]
    Msgs64k,
    /// 32 bytes there and back on an open channel
    #[value(name = "rtt")]
    Rtt,
    /// New requests of 32 bytes, one by one
    #[value(name = "rpc-1")]
    Rpc1,
    /// New requests of 32 bytes, 64 at a time
    #[value(name = "rpc-64")]
    Rpc64,
    /// A stream for each message of 64 bytes, 64 at a time
    #[value(name = "streams")]
    Streams,
    /// Bytes one way with libp2p's /perf/1.0.0
    #[value(name = "perf-up")]
    PerfUp,
    /// Bytes the other way with it
    #[value(name = "perf-down")]
    PerfDown,
    /// Exchanges of nothing with it, one by one
    #[value(name = "perf-rtt")]
    PerfRtt,
}

impl Work {
    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Work::Bulk1 => "bulk-1",
            Work::Bulk8 => "bulk-8",
            Work::Msgs64 => "msgs-64",
            Work::Msgs1k => "msgs-1k",
            Work::Msgs64k => "msgs-64k",
            Work::Rtt => "rtt",
            Work::Rpc1 => "rpc-1",
            Work::Rpc64 => "rpc-64",
            Work::Streams => "streams",
            Work::PerfUp => "perf-up",
            Work::PerfDown => "perf-down",
            Work::PerfRtt => "perf-rtt",
        }
    }

    /// It is done with libp2p's perf protocol, not with ours.
    pub(super) fn is_perf(self) -> bool {
        matches!(self, Work::PerfUp | Work::PerfDown | Work::PerfRtt)
    }

    /// What is counted beside bytes.
    pub(super) fn counts(self) -> Option<&'static str> {
        match self {
            Work::Bulk1 | Work::Bulk8 | Work::PerfUp | Work::PerfDown => None,
            Work::Msgs64 | Work::Msgs1k | Work::Msgs64k | Work::Rtt => Some("messages"),
            Work::Rpc1 | Work::Rpc64 => Some("requests"),
            Work::PerfRtt => Some("exchanges"),
            Work::Streams => Some("streams"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_work_is_asked_for_by_the_name_that_it_is_shown_with() {
        for work in Work::value_variants() {
            assert_eq!(Work::from_str(work.name(), false), Ok(*work));
        }
    }
}
