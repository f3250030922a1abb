//! What must be reached, and whether it was: a report, no gate.

use peerage_bench_peer::Work;
use serde::Serialize;

use super::figures::{Metric, Runs, cpu_each, median, metrics};
use super::weight::Weights;

/// One bar, as it came out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Bar {
    /// Of which work.
    pub(crate) work: String,
    /// What is asked, such as `ours-1452 ≥ 0.95 × raw-quinn-tuned`.
    pub(crate) asked: String,
    /// What it came to; `None` if one of the rows was not measured.
    pub(crate) came: Option<f64>,
    /// In which unit; empty for a ratio.
    pub(crate) unit: &'static str,
    /// Whether it is reached. `None`: not measured, or only reported.
    pub(crate) reached: Option<bool>,
}

impl Bar {
    /// `PASS`, `MISSED`, or why neither.
    pub(crate) fn word(&self) -> &'static str {
        match (self.reached, self.came) {
            (Some(true), _) => "PASS",
            (Some(false), _) => "MISSED",
            (None, Some(_)) => "reported",
            (None, None) => "not measured",
        }
    }
}

/// What a figure must be.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Limit {
    AtLeast(f64),
    AtMost(f64),
    Below(f64),
    /// Nothing: it is told only.
    Told,
}

impl Limit {
    fn holds(self, figure: f64) -> Option<bool> {
        match self {
            Limit::AtLeast(limit) => Some(figure >= limit),
            Limit::AtMost(limit) => Some(figure <= limit),
            Limit::Below(limit) => Some(figure < limit),
            Limit::Told => None,
        }
    }

    fn text(self) -> String {
        match self {
            Limit::AtLeast(limit) => format!("≥ {limit}"),
            Limit::AtMost(limit) => format!("≤ {limit}"),
            Limit::Below(limit) => format!("< {limit}"),
            Limit::Told => String::new(),
        }
    }
}

use Limit::{AtLeast, AtMost, Below, Told};

/// Ratios of the main figure of one work: ours, the limit, to whom.
const RATIOS: &[(Work, usize, &str, Limit, &str)] = &[
    (Work::Bulk1, 0, "ours-1452", AtLeast(0.95), "raw-quinn-tuned"),
    (Work::Bulk1, 0, "ours", AtLeast(0.9), "raw-quinn-jumbo"),
    (Work::Bulk8, 0, "ours-1452", AtLeast(0.95), "raw-quinn-tuned"),
    (Work::Bulk8, 0, "ours", AtLeast(0.9), "raw-quinn-jumbo"),
    (Work::Messages64, 0, "ours-1452", AtLeast(0.8), "raw-quinn, joined"),
    (Work::Messages64, 0, "ours-1452", AtLeast(5.0), "raw-quinn"),
    (Work::Messages64k, 0, "ours-1452", AtLeast(0.95), "raw-quinn-tuned"),
    (Work::Rtt, 0, "ours", AtMost(1.15), "raw-quinn"),
    (Work::Rpc1, 0, "ours", AtMost(1.3), "raw-quinn"),
    (Work::Rpc64, 0, "ours", AtLeast(0.75), "raw-quinn"),
    (Work::Streams, 0, "ours", AtLeast(0.5), "raw-quinn"),
    (Work::Handshake1, 0, "ours", AtLeast(0.85), "raw-quinn"),
    (Work::Handshake32, 0, "ours", AtLeast(1.3), "raw-quinn"),
    (Work::Memory, 0, "ours", AtMost(1.25), "raw-quinn"),
    (Work::Memory, 1, "ours", AtMost(1.25), "raw-quinn"),
    (Work::Bulk1, 0, "ours-1452", AtLeast(1.8), "rust-libp2p"),
    (Work::Bulk1, 0, "ours", AtLeast(2.4), "rust-libp2p"),
    (Work::Bulk8, 0, "ours-1452", AtLeast(1.4), "rust-libp2p"),
    (Work::Bulk8, 0, "ours", AtLeast(2.4), "rust-libp2p"),
    (Work::Messages64, 0, "ours-1452", AtLeast(5.0), "rust-libp2p"),
    (Work::Messages1k, 0, "ours-1452", AtLeast(2.0), "rust-libp2p"),
    (Work::Messages64k, 0, "ours-1452", AtLeast(1.2), "rust-libp2p"),
    (Work::Messages64k, 0, "ours", AtLeast(2.0), "rust-libp2p"),
    (Work::Rtt, 0, "ours", AtMost(1.05), "rust-libp2p"),
    (Work::Rpc1, 0, "ours", AtMost(0.4), "rust-libp2p"),
    (Work::Rpc64, 0, "ours", AtLeast(2.5), "rust-libp2p"),
    (Work::Streams, 0, "ours", AtLeast(15.0), "rust-libp2p"),
    (Work::Handshake1, 0, "ours", AtLeast(1.5), "rust-libp2p"),
    (Work::Handshake32, 0, "ours", AtLeast(2.0), "rust-libp2p"),
    (Work::Memory, 0, "ours", AtMost(0.8), "rust-libp2p"),
    (Work::Memory, 1, "ours", AtMost(0.8), "rust-libp2p"),
    (Work::Memory, 0, "ours", Below(1.0), "iroh"),
    (Work::Memory, 1, "ours", Below(1.0), "iroh"),
    (Work::Bulk1, 0, "ours", Told, "tcp-tls"),
];

/// One figure of one row.
struct Side<'a> {
    work: Work,
    label: &'a str,
    metric: Metric,
}

/// The bars of the works that were run, in the order of the works.
pub(crate) fn bars(runs: &Runs, weights: Option<&Weights>) -> Vec<Bar> {
    let mut bars = Vec::new();
    for work in Work::all() {
        if !runs.entries().iter().any(|entry| entry.work == *work) {
            continue;
        }
        for (_, index, ours, limit, other) in RATIOS.iter().filter(|(of, ..)| of == work) {
            let Some(metric) = metrics(*work).get(*index).copied() else { continue };
            let side = |label| Side { work: *work, label, metric };
            bars.push(of_ratio(runs, *work, &side(ours), *limit, &side(other), 1.0));
        }
        bars.extend(others(runs, *work));
    }
    bars.extend(weights.map(of_weights).unwrap_or_default());
    // Peers that were not named are no shortcoming of this run.
    bars.retain(|bar| bar.came.is_some() || runs_all(runs, &bar.asked));
    bars
}

/// Whether every foreign peer that a bar speaks of was measured.
fn runs_all(runs: &Runs, asked: &str) -> bool {
    let foreign = ["rust-libp2p", "iroh", "tcp-tls"];
    let here = |name: &str| runs.entries().iter().any(|entry| entry.peer.name() == name);
    here("ours") && foreign.iter().all(|name| !asked.contains(name) || here(name))
}

fn of_ratio(runs: &Runs, work: Work, left: &Side<'_>, limit: Limit, right: &Side<'_>, factor: f64) -> Bar {
    let found = runs.find(left.work, left.label).zip(runs.find(right.work, right.label));
    let came = found.and_then(|(l, r)| runs.ratio((l, left.metric), (r, right.metric)));
    let came = came.map(|ratio| ratio * factor);
    let other = if right.work == work {
        right.label.to_owned()
    } else {
        format!("{} of {}", right.label, right.work)
    };
    Bar {
        work: work.name(),
        asked: asked(left, limit, &other),
        came,
        unit: "",
        reached: came.and_then(|came| limit.holds(came)),
    }
}

fn asked(left: &Side<'_>, limit: Limit, other: &str) -> String {
    match limit {
        Limit::Told => format!("{} {}: how many times {other}", left.label, left.metric.name),
        limit => format!("{} {}: {} × {other}", left.label, left.metric.name, limit.text()),
    }
}

fn of_figure(work: Work, asked: String, came: Option<f64>, unit: &'static str, limit: Limit) -> Bar {
    Bar { work: work.name(), asked, came, unit, reached: came.and_then(|came| limit.holds(came)) }
}

/// Bars that are no ratio of the same figure of two rows of one work.
fn others(runs: &Runs, work: Work) -> Vec<Bar> {
    let ours = runs.find(work, "ours");
    let main = |work| metrics(work)[0];
    match work {
        Work::Messages1k => {
            // Bytes a second: a message of this work has 1,024.
            let left = Side { work, label: "ours-1452", metric: main(work) };
            let right = Side { work: Work::Bulk1, label: "raw-quinn-tuned", metric: main(Work::Bulk1) };
            vec![of_ratio(runs, work, &left, AtLeast(0.85), &right, work.message_bytes() as f64)]
        }
        Work::Streams => {
            let lost = ours.map(|entry| runs.lost(entry) as f64);
            vec![of_figure(work, "ours: none lost".to_owned(), lost, "lost", AtMost(0.0))]
        }
        Work::Fanout => {
            let left = Side { work, label: "ours", metric: cpu_each() };
            let right = Side { work: Work::Messages1k, label: "ours", metric: cpu_each() };
            vec![of_ratio(runs, work, &left, AtMost(1.2), &right, 1.0)]
        }
        Work::Prio => prio(runs),
        Work::Start => {
            let times: Vec<f64> = ours
                .map(|entry| runs.series(entry, main(work)))
                .unwrap_or_default()
                .into_iter()
                .flatten()
                .collect();
            let came = (!times.is_empty()).then(|| median(&times) * 1e3);
            vec![of_figure(work, "ours: ≤ 20 ms".to_owned(), came, "ms", AtMost(20.0))]
        }
        _ => Vec::new(),
    }
}

/// Of every round: how much later than idle the control channel is while bulk saturates, and its share of what equal priorities give.
fn prio(runs: &Runs) -> Vec<Bar> {
    let work = Work::Prio;
    let [idle, busy, equal] = [0, 1, 2].map(|index| {
        let metric = metrics(work)[index];
        runs.find(work, "ours").map(|entry| runs.series(entry, metric)).unwrap_or_default()
    });
    let later: Vec<f64> =
        busy.iter().zip(&idle).filter_map(|(busy, idle)| Some(((*busy)? - (*idle)?) * 1e3)).collect();
    let came = (!later.is_empty()).then(|| median(&later));
    vec![
        of_figure(work, "ours: busy p99 ≤ idle p99 + 5 ms".to_owned(), came, "ms later", AtMost(5.0)),
        of_figure(
            work,
            "ours: busy p99 ≤ 0.5 × equal p99".to_owned(),
            super::figures::ratio(&busy, &equal),
            "",
            AtMost(0.5),
        ),
    ]
}

fn of_weights(weights: &Weights) -> Vec<Bar> {
    let bar = |asked: &str, came: f64, unit, limit: Limit| Bar {
        work: "weight".to_owned(),
        asked: asked.to_owned(),
        came: Some(came),
        unit,
        reached: limit.holds(came),
    };
    let ours = &weights.ours;
    vec![
        bar("ours: ≤ 150 crates", ours.crates as f64, "crates", AtMost(150.0)),
        bar("ours: ≤ 300 CPU s for a cold release build", ours.cpu_seconds, "s", AtMost(300.0)),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use peerage_bench_peer::{Done, Ended, Latency, Negotiated, Report};

    use super::*;
    use crate::table::plan::{Entry, PeerName, entries};

    fn done(work: Work, seconds: f64) -> Done {
        let latency = |us| Latency { p50_us: us, p99_us: us, samples: 10 };
        let phases = [("idle", 100.0), ("busy", 900.0), ("equal", 2000.0)];
        let phases = phases.map(|(name, us)| (name.to_owned(), latency(us)));
        Done {
            amount: 1000,
            unit: work.unit(),
            seconds,
            lost: 0,
            client_cpu: Some(seconds),
            server_cpu: Some(seconds),
            elsewhere: Some(0.0),
            latency: Some(latency(seconds * 1e3)),
            phases: if work == Work::Prio { BTreeMap::from(phases) } else { BTreeMap::new() },
            memory: None,
            negotiated: Negotiated::default(),
        }
    }

    /// One round, in which every row of these peers took so many seconds.
    fn runs(works: &[Work], peers: &[(PeerName, f64)]) -> Runs {
        let rows: Vec<(Entry, f64)> = works
            .iter()
            .flat_map(|work| peers.iter().map(move |(peer, seconds)| (*work, *peer, *seconds)))
            .flat_map(|(work, peer, seconds)| {
                entries(work, peer, false).into_iter().map(move |entry| (entry, seconds))
            })
            .collect();
        let mut runs = Runs::new(rows.iter().map(|(entry, _)| *entry).collect());
        for (entry, seconds) in rows {
            let ended = Ended::Done(Box::new(done(entry.work, seconds)));
            let (peer, form) = (entry.peer.name().to_owned(), entry.form.to_owned());
            runs.note(entry, 1, Report { peer, form, work: entry.work, joined: entry.joined, ended });
        }
        runs
    }

    fn words(runs: &Runs) -> Vec<(String, &'static str)> {
        bars(runs, None).into_iter().map(|bar| (bar.asked.clone(), bar.word())).collect()
    }

    #[test]
    fn a_ratio_passes_at_its_limit_and_not_below() {
        let at = runs(&[Work::Rpc64], &[(PeerName::RawQuinn, 0.75), (PeerName::Ours, 1.0)]);
        assert_eq!(words(&at), [("ours rate: ≥ 0.75 × raw-quinn".to_owned(), "PASS")]);
        let below = runs(&[Work::Rpc64], &[(PeerName::RawQuinn, 0.74), (PeerName::Ours, 1.0)]);
        assert_eq!(words(&below), [("ours rate: ≥ 0.75 × raw-quinn".to_owned(), "MISSED")]);
    }

    #[test]
    fn bars_of_peers_that_were_not_run_are_left_out_and_of_works_that_were_not_say_so() {
        let three = [(PeerName::RawQuinn, 1.0), (PeerName::RustLibp2p, 4.0), (PeerName::Ours, 1.0)];
        let rtt = words(&runs(&[Work::Rtt], &three));
        assert_eq!(rtt.len(), 2, "{rtt:?}");
        let two = words(&runs(&[Work::Rtt], &three[..1]));
        assert!(two.is_empty(), "{two:?}");
        let alone = words(&runs(&[Work::Messages1k], &[(PeerName::RawQuinn, 1.0), (PeerName::Ours, 1.0)]));
        assert_eq!(
            alone,
            [("ours-1452 rate: ≥ 0.85 × raw-quinn-tuned of bulk-1".to_owned(), "not measured")]
        );
    }

    #[test]
    fn messages_of_1k_are_compared_with_bulk_by_their_bytes() {
        let both =
            runs(&[Work::Bulk1, Work::Messages1k], &[(PeerName::RawQuinn, 1.0), (PeerName::Ours, 1.0)]);
        let bar = bars(&both, None).into_iter().find(|bar| bar.work == "msgs-1k");
        assert_eq!(bar.and_then(|bar| bar.came), Some(1024.0));
    }

    #[test]
    fn a_control_channel_may_be_late_by_so_much_and_no_more() {
        let prio = runs(&[Work::Prio], &[(PeerName::Ours, 1.0)]);
        let came: Vec<_> =
            bars(&prio, None).iter().map(|bar| (bar.came.unwrap_or(-1.0), bar.reached)).collect();
        assert!(
            matches!(came[..], [(later, Some(true)), (share, Some(true))]
            if (later - 0.8).abs() < 1e-9 && (share - 0.45).abs() < 1e-9),
            "{came:?}"
        );
    }

    #[test]
    fn what_only_is_told_neither_passes_nor_misses() {
        let bulk = runs(
            &[Work::Bulk1],
            &[(PeerName::RawQuinn, 1.0), (PeerName::TcpTls, 0.5), (PeerName::Ours, 1.0)],
        );
        let told = words(&bulk).into_iter().find(|(asked, _)| asked.contains("tcp-tls"));
        assert_eq!(told, Some(("ours rate: how many times tcp-tls".to_owned(), "reported")));
    }
}
