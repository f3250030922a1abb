//! What was measured, and how it is shown.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use peerage::PeerId;
use serde_json::{Map, Value, json};

use super::work::Work;
use crate::term::{one_line, rate, size};

/// Different reasons of losses that are told apart.
const MAX_REASONS: usize = 16;

/// How far a work is, told by whoever does it and read by whoever shows it.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    bytes: AtomicU64,
    items: AtomicU64,
}

impl Gauge {
    /// More has been moved: so many messages, requests or streams, and so many bytes.
    pub(super) fn add(&self, items: u64, bytes: u64) {
        self.items.fetch_add(items, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many bytes have been moved in all.
    pub(super) fn set_bytes(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// Items and bytes.
    pub(super) fn read(&self) -> (u64, u64) {
        (self.items.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// The same for people, in what the work is counted in.
    pub(super) fn reached(&self, work: Work) -> String {
        let (items, bytes) = self.read();
        match work.counts() {
            Some(what) => format!("{items} {what}"),
            None => size(bytes),
        }
    }
}

/// What one work gave.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Figure {
    /// Bytes of payload that arrived.
    pub(crate) bytes: u64,
    /// Messages, requests or streams; none where only bytes count.
    pub(crate) items: u64,
    /// From the start until the other side had all of it.
    pub(crate) time: Duration,
    /// The median time of one, and the time that one in a hundred exceeds.
    pub(crate) quantiles: Option<(Duration, Duration)>,
    /// What got lost, by reason; nothing where a loss ends the work.
    pub(crate) losses: Losses,
}

impl Figure {
    pub(super) fn per_second(&self) -> f64 {
        self.items as f64 / self.time.as_secs_f64().max(1e-9)
    }
}

/// What got lost, counted by reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Losses(BTreeMap<String, u64>);

impl Losses {
    pub(super) fn add(&mut self, reason: &str) {
        self.add_many(one_line(reason), 1);
    }

    pub(super) fn merge(&mut self, other: Losses) {
        other.0.into_iter().for_each(|(reason, count)| self.add_many(reason, count));
    }

    fn add_many(&mut self, reason: String, count: u64) {
        let known = self.0.contains_key(&reason) || self.0.len() < MAX_REASONS;
        *self.0.entry(if known { reason } else { "other reasons".to_owned() }).or_default() += count;
    }

    pub(super) fn count(&self) -> u64 {
        self.0.values().sum()
    }
}

impl std::fmt::Display for Losses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let reasons: Vec<_> = self.0.iter().map(|(reason, count)| format!("{count} × {reason}")).collect();
        match self.count() {
            0 => f.write_str("none lost"),
            count => write!(f, "{count} lost: {}", reasons.join("; ")),
        }
    }
}

/// What became of a work.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// It was done.
    Measured(Figure),
    /// The other side has nothing to do it with; what would help.
    NotServed(&'static str),
    /// It broke; how far it was.
    Failed { error: String, reached: String },
    /// The user ended it; how far it was.
    Interrupted { reached: String },
    /// It was not begun, because of what became of one before.
    NotRun,
}

impl Outcome {
    fn name(&self) -> &'static str {
        match self {
            Outcome::Measured(_) => "measured",
            Outcome::NotServed(_) => "not served",
            Outcome::Failed { .. } => "failed",
            Outcome::Interrupted { .. } => "interrupted",
            Outcome::NotRun => "not run",
        }
    }

    /// The cells of the table behind the work's name: result, p50, p99, moved, time, remark.
    pub(super) fn cells(&self, work: Work) -> [String; 6] {
        let words =
            |remark: String| [self.name().to_owned(), "".into(), "".into(), "".into(), "".into(), remark];
        let figure = match self {
            Outcome::Measured(figure) => figure,
            Outcome::NotServed(remedy) => return words((*remedy).to_owned()),
            Outcome::Failed { error, reached } => {
                return words(format!("after {reached}: {}", one_line(error)));
            }
            Outcome::Interrupted { reached } => return words(format!("after {reached}")),
            Outcome::NotRun => return words(String::new()),
        };
        let bytes = format!("{:.1} MiB/s", rate(figure.bytes, figure.time));
        let [p50, p99] = match figure.quantiles {
            Some((p50, p99)) => [micros(p50), micros(p99)],
            None => [String::new(), String::new()],
        };
        let (result, remark) = match work {
            Work::Streams => (per_second(figure), figure.losses.to_string()),
            Work::Msgs64 | Work::Msgs1k | Work::Msgs64k => (per_second(figure), bytes),
            _ if work.counts().is_some() => (per_second(figure), String::new()),
            _ => (bytes, String::new()),
        };
        let moved =
            work.counts().map_or_else(|| size(figure.bytes), |what| format!("{} {what}", figure.items));
        [result, p50, p99, moved, format!("{:.2} s", figure.time.as_secs_f64()), remark]
    }

    /// One line for programs.
    pub(super) fn json(&self, work: Work, peer: PeerId) -> Value {
        let mut row = Map::new();
        let mut put = |name: &str, value: Value| row.insert(name.to_owned(), value);
        put("work", json!(work.name()));
        put("peer", json!(peer.to_string()));
        put("status", json!(self.name()));
        match self {
            Outcome::Measured(figure) => {
                put("seconds", json!(figure.time.as_secs_f64()));
                put("bytes", json!(figure.bytes));
                put("mib_per_second", json!(rate(figure.bytes, figure.time)));
                if let Some(what) = work.counts() {
                    put(what, json!(figure.items));
                    put("per_second", json!(figure.per_second()));
                }
                if let Some((p50, p99)) = figure.quantiles {
                    put("p50_us", json!(p50.as_secs_f64() * 1e6));
                    put("p99_us", json!(p99.as_secs_f64() * 1e6));
                }
                if work == Work::Streams {
                    put("lost", json!(figure.losses.count()));
                    put("losses", json!(figure.losses.0));
                }
            }
            Outcome::NotServed(remedy) => drop(put("remedy", json!(remedy))),
            Outcome::Failed { error, reached } => {
                put("error", json!(one_line(error)));
                put("reached", json!(reached));
            }
            Outcome::Interrupted { reached } => drop(put("reached", json!(reached))),
            Outcome::NotRun => {}
        }
        Value::Object(row)
    }
}

/// A rate, with the thousands apart.
pub(super) fn per_second(figure: &Figure) -> String {
    let digits = format!("{:.0}", figure.per_second());
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    format!("{} /s", groups.join(","))
}

fn micros(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    if micros < 1000.0 { format!("{micros:.1} µs") } else { crate::term::ms(time) }
}

/// The median, and the time that one in a hundred exceeds.
pub(super) fn quantiles(mut times: Vec<Duration>) -> Option<(Duration, Duration)> {
    times.sort_unstable();
    let last = times.len().checked_sub(1)?;
    Some((times[last / 2], times[(last * 99).div_ceil(100)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_what_was_measured() {
        let ms = Duration::from_millis;
        assert_eq!(quantiles(vec![]), None);
        assert_eq!(quantiles(vec![ms(7)]), Some((ms(7), ms(7))));
        assert_eq!(quantiles((1..=101).rev().map(ms).collect()), Some((ms(51), ms(100))));
    }

    #[test]
    fn losses_are_counted_by_reason_and_their_reasons_are_bounded() {
        let mut losses = Losses::default();
        assert_eq!(losses.to_string(), "none lost");
        (0..3).for_each(|_| losses.add("reset"));
        losses.add("a\nb");
        assert_eq!(losses.to_string(), "4 lost: 1 × a b; 3 × reset");
        (0..100).for_each(|number| losses.add(&format!("reason {number}")));
        assert_eq!((losses.count(), losses.0.len()), (104, MAX_REASONS + 1));
    }

    #[test]
    fn every_outcome_has_a_row_for_people_and_one_for_programs() {
        let peer = peerage::NodeKey::from_seed([1; 32]).peer_id();
        let second = Duration::from_secs(1);
        let quantiles = Some((Duration::from_micros(63), Duration::from_millis(2)));
        let figure =
            Figure { bytes: 3 << 20, items: 1_234_567, time: second, quantiles, ..Figure::default() };
        let rtt = Outcome::Measured(figure.clone());
        assert_eq!(
            rtt.cells(Work::Rtt),
            ["1,234,567 /s", "63.0 µs", "2.00 ms", "1234567 messages", "1.00 s", ""]
        );
        let row = rtt.json(Work::Rtt, peer);
        assert_eq!((&row["p50_us"], &row["messages"]), (&json!(63.0), &json!(1_234_567)));
        let bulk = Outcome::Measured(Figure { quantiles: None, ..figure.clone() });
        assert_eq!(bulk.cells(Work::Bulk1), ["3.0 MiB/s", "", "", "3.0 MiB", "1.00 s", ""]);
        assert_eq!(bulk.json(Work::Bulk1, peer)["mib_per_second"], 3.0);
        assert_eq!(bulk.cells(Work::Msgs1k)[5], "3.0 MiB/s");
        assert_eq!(Outcome::Measured(figure).json(Work::Streams, peer)["lost"], 0);
        let failed = Outcome::Failed { error: "no\nanswer".into(), reached: "3 requests".into() };
        assert_eq!(failed.cells(Work::Rpc1)[5], "after 3 requests: no answer");
        for (outcome, status) in [
            (Outcome::NotServed("help"), "not served"),
            (failed, "failed"),
            (Outcome::Interrupted { reached: "x".into() }, "interrupted"),
            (Outcome::NotRun, "not run"),
        ] {
            assert_eq!(
                (outcome.json(Work::Rpc1, peer)["status"].as_str(), &outcome.cells(Work::Rpc1)[0][..]),
                (Some(status), status)
            );
        }
    }
}
