//! From reports to figures: medians, spreads, and ratios of the same round.

use std::collections::BTreeMap;

use peerage_bench_peer::{Done, Ended, Report, Work};

use super::plan::Entry;

/// From so many busy processors elsewhere on, a run counts as disturbed.
pub(crate) const DISTURBED: f64 = 0.3;

/// Every report of a run of the table, by row and round.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    entries: Vec<Entry>,
    /// By round; what failed or does not apply is here from the warm-up on, which is round 0.
    reports: BTreeMap<Entry, BTreeMap<u32, Report>>,
    last_round: u32,
}

/// Something that is read off a report.
#[derive(Clone, Copy)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    /// The unit that is printed, and what the figure is multiplied with for it.
    pub(crate) unit: (&'static str, f64),
    pub(crate) more_is_better: bool,
    /// In bytes, messages, requests, connections a second; or seconds; or bytes.
    pub(crate) of: fn(&Done) -> Option<f64>,
}

const MIB: f64 = 1.0 / (1 << 20) as f64;

fn rate(unit: &'static str, factor: f64) -> Metric {
    Metric { name: "rate", unit: (unit, factor), more_is_better: true, of: |done| Some(done.rate()) }
}

fn less(name: &'static str, unit: &'static str, factor: f64, of: fn(&Done) -> Option<f64>) -> Metric {
    Metric { name, unit: (unit, factor), more_is_better: false, of }
}

fn p50(unit: &'static str, factor: f64) -> Metric {
    less("p50", unit, factor, |done| Some(done.latency?.p50_us / 1e6))
}

fn p99(unit: &'static str, factor: f64) -> Metric {
    less("p99", unit, factor, |done| Some(done.latency?.p99_us / 1e6))
}

/// What is read off the reports of a work, the main figure first.
pub(crate) fn metrics(work: Work) -> Vec<Metric> {
    let phase = |name| -> Metric {
        let of: fn(&Done) -> Option<f64> = match name {
            "idle p99" => |done| Some(done.phases.get("idle")?.p99_us / 1e6),
            "busy p99" => |done| Some(done.phases.get("busy")?.p99_us / 1e6),
            _ => |done| Some(done.phases.get("equal")?.p99_us / 1e6),
        };
        less(name, "ms", 1e3, of)
    };
    match work {
        Work::Bulk1 | Work::Bulk8 => vec![rate("MiB/s", MIB)],
        Work::Messages64 | Work::Messages1k | Work::Messages64k | Work::Streams | Work::Fanout => {
            vec![rate("thousand/s", 1e-3)]
        }
        Work::Rtt | Work::Rpc1 => vec![p50("µs", 1e6), p99("µs", 1e6)],
        Work::Rpc64 => vec![rate("thousand/s", 1e-3), p99("µs", 1e6)],
        Work::Handshake1 | Work::Handshake32 => vec![rate("conn/s", 1.0), p50("ms", 1e3), p99("ms", 1e3)],
        Work::Memory => vec![
            less("inbound", "KiB/conn", 1.0 / 1024.0, |done| done.memory?.server_bytes),
            less("outbound", "KiB/conn", 1.0 / 1024.0, |done| done.memory?.client_bytes),
        ],
        Work::Prio => vec![phase("idle p99"), phase("busy p99"), phase("equal p99")],
        Work::Start => vec![less("time", "ms", 1e3, |done| Some(done.seconds))],
    }
}

/// Processor seconds of both sides for one unit of the work: a byte, a message, a request, a connection.
pub(crate) fn cpu_each() -> Metric {
    less("cpu", "s", 1.0, |done| Some(done.cpu()? / done.amount.saturating_sub(done.lost).max(1) as f64))
}

/// In which amount of a work its processor time is told, and how that is named.
pub(crate) fn cpu_scale(work: Work) -> (f64, &'static str) {
    match work {
        Work::Bulk1 | Work::Bulk8 => ((1u64 << 30) as f64, "s/GiB"),
        Work::Handshake1 | Work::Handshake32 | Work::Start | Work::Memory => (1e3, "s/thousand"),
        _ => (1e6, "s/million"),
    }
}

impl Runs {
    /// The rows, in the order in which they will be printed.
    pub(crate) fn new(entries: Vec<Entry>) -> Self {
        Self { entries, ..Self::default() }
    }

    pub(crate) fn note(&mut self, entry: Entry, round: u32, report: Report) {
        self.last_round = self.last_round.max(round);
        self.reports.entry(entry).or_default().insert(round, report);
    }

    fn reports(&self, entry: &Entry) -> impl Iterator<Item = &Report> {
        self.reports.get(entry).into_iter().flat_map(BTreeMap::values)
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(crate) fn find(&self, work: Work, label: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.work == work && entry.label() == label)
    }

    /// Why a work does not apply to a row.
    pub(crate) fn excuse(&self, entry: &Entry) -> Option<&str> {
        match self.reports(entry).next().map(|report| &report.ended) {
            Some(Ended::DoesNotApply { why }) => Some(why),
            _ => None,
        }
    }

    /// In how many rounds it failed, and the last reason.
    pub(crate) fn failures(&self, entry: &Entry) -> (usize, Option<&str>) {
        let reasons: Vec<_> = self
            .reports(entry)
            .filter_map(|report| match &report.ended {
                Ended::Failed { why } => Some(why.as_str()),
                Ended::DoesNotApply { .. } | Ended::Done(_) => None,
            })
            .collect();
        (reasons.len(), reasons.last().copied())
    }

    pub(crate) fn done(&self, entry: &Entry) -> impl Iterator<Item = &Done> {
        self.reports(entry).filter_map(Report::done)
    }

    /// A figure of each round after the warm-up; a round in which the row has none has a gap.
    pub(crate) fn series(&self, entry: &Entry, metric: Metric) -> Vec<Option<f64>> {
        let report = |round: u32| self.reports.get(entry)?.get(&round);
        (1..=self.last_round).map(|round| report(round)?.done().and_then(metric.of)).collect()
    }

    /// The ratio of two rows of the same round: the median of all rounds.
    pub(crate) fn ratio(&self, left: (&Entry, Metric), right: (&Entry, Metric)) -> Option<f64> {
        ratio(&self.series(left.0, left.1), &self.series(right.0, right.1))
    }

    /// Runs that were disturbed, and all.
    pub(crate) fn disturbed(&self, entry: &Entry) -> (usize, usize) {
        let loads: Vec<f64> = self.done(entry).map(|done| done.elsewhere.unwrap_or_default()).collect();
        (loads.iter().filter(|load| **load > DISTURBED).count(), loads.len())
    }

    pub(crate) fn lost(&self, entry: &Entry) -> u64 {
        self.done(entry).map(|done| done.lost).sum()
    }
}

/// The median of the ratios of figures of the same round.
pub(crate) fn ratio(left: &[Option<f64>], right: &[Option<f64>]) -> Option<f64> {
    let pairs = left.iter().zip(right).filter_map(|(left, right)| Some((*left)? / (*right)?));
    let ratios: Vec<f64> = pairs.filter(|ratio| ratio.is_finite()).collect();
    (!ratios.is_empty()).then(|| median(&ratios))
}

/// The middle one of the figures, or the mean of both that are; 0 without any.
pub(crate) fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        count if count % 2 == 1 => sorted[count / 2],
        count => (sorted[count / 2 - 1] + sorted[count / 2]) / 2.0,
    }
}

/// Median, least and most of the figures that are there.
pub(crate) fn spread(figures: &[Option<f64>]) -> Option<(f64, f64, f64)> {
    let figures: Vec<f64> = figures.iter().flatten().copied().collect();
    let least = figures.iter().copied().min_by(f64::total_cmp)?;
    let most = figures.iter().copied().max_by(f64::total_cmp)?;
    Some((median(&figures), least, most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_the_same_round_and_gaps_are_left_out() {
        let left = [Some(2.0), Some(90.0), None, Some(6.0)];
        let right = [Some(1.0), Some(30.0), Some(5.0), Some(1.5)];
        assert_eq!(ratio(&left, &right), Some(3.0));
        assert_eq!(ratio(&[Some(1.0)], &[Some(0.0)]), None);
        assert_eq!(ratio(&[None], &[Some(1.0)]), None);
    }

    #[test]
    fn a_spread_has_the_median_and_both_ends() {
        assert_eq!(spread(&[Some(3.0), None, Some(1.0), Some(2.0)]), Some((2.0, 1.0, 3.0)));
        assert_eq!(spread(&[None]), None);
        assert!((median(&[4.0, 1.0, 3.0, 2.0]) - 2.5).abs() < 1e-9);
    }

    #[test]
    fn rounds_that_failed_leave_gaps_and_move_no_other_round() {
        let entry = crate::table::plan::entries(Work::Rpc64, crate::table::plan::PeerName::Ours, false)[0];
        let report = |ended: Ended| Report {
            peer: String::new(),
            form: String::new(),
            work: entry.work,
            joined: false,
            ended,
        };
        let mut runs = Runs::new(vec![entry]);
        for round in [0, 2] {
            runs.note(entry, round, report(Ended::Failed { why: format!("in round {round}") }));
        }
        let done = serde_json::json!({
            "amount": 10, "unit": "requests", "seconds": 2.0, "lost": 0, "result": "done",
            "client_cpu": null, "server_cpu": null, "elsewhere": 0.5, "latency": null,
        });
        let done: Ended = serde_json::from_value(done).unwrap_or_else(|error| panic!("{error}"));
        runs.note(entry, 3, report(done));
        assert_eq!(runs.series(&entry, metrics(entry.work)[0]), [None, None, Some(5.0)]);
        assert_eq!((runs.failures(&entry), runs.disturbed(&entry)), ((2, Some("in round 2")), (1, 1)));
    }

    #[test]
    fn every_work_has_a_main_figure() {
        for work in Work::all() {
            assert!(!metrics(*work).is_empty(), "{work}");
        }
    }
}
