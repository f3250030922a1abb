//! What the user sees while it is measured: one line that moves on a terminal, a line for each finished work elsewhere.

use std::io::{self, IsTerminal};
use std::pin::pin;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::figures::{Figure, Gauge, Outcome, per_second};
use super::measure::Plan;
use super::work::Work;
use crate::term::{complain, rate};

/// How often the line moves.
const TICK: Duration = Duration::from_millis(100);
/// The steps of the bar.
const STEPS: u64 = 1000;

/// Where progress is shown: on stderr.
#[derive(Debug)]
pub(super) enum Line {
    /// On a terminal.
    Bar(ProgressBar),
    /// In a file or a pipe.
    Lines,
    /// Nowhere.
    Silent,
}

impl Line {
    /// The line of a command that says its results itself as it goes, or at the end only.
    pub(super) fn new(tells_results: bool) -> Self {
        match (io::stderr().is_terminal(), tells_results) {
            (true, _) => {
                let bar = ProgressBar::new(STEPS);
                let style = "{prefix:>9} [{bar:30}] {msg}";
                bar.set_style(ProgressStyle::with_template(style).unwrap_or(ProgressStyle::default_bar()));
                Line::Bar(bar)
            }
            (false, false) => Line::Lines,
            (false, true) => Line::Silent,
        }
    }

    /// Shows how far a work is until it has ended.
    pub(super) async fn follow<T>(
        &self,
        work: Work,
        plan: &Plan,
        gauge: &Gauge,
        doing: impl Future<Output = T>,
    ) -> T {
        let mut doing = pin!(doing);
        let Line::Bar(bar) = self else { return doing.await };
        bar.set_prefix(work.name());
        let (start, mut ticks) = (Instant::now(), interval(TICK));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                done = &mut doing => return done,
                _ = ticks.tick() => {
                    let took = start.elapsed();
                    bar.set_position((share(work, plan, gauge, took) * STEPS as f64) as u64);
                    bar.set_message(speed(work, gauge, took));
                }
            }
        }
    }

    /// Tells what became of a work, where nothing else does.
    pub(super) fn tell(&self, work: Work, outcome: &Outcome) {
        if matches!(self, Line::Lines) {
            let [result, .., remark] = outcome.cells(work);
            complain(format!("{}: {result} {remark}", work.name()).trim_end());
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Line::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

/// How much of a work is done: of its amount or of its time, whichever is more.
fn share(work: Work, plan: &Plan, gauge: &Gauge, took: Duration) -> f64 {
    let (items, bytes) = gauge.read();
    let done = if work.counts().is_some() { items } else { bytes };
    let amount = done as f64 / plan.most(work).max(1) as f64;
    amount.max(took.as_secs_f64() / plan.within.as_secs_f64()).min(1.0)
}

fn speed(work: Work, gauge: &Gauge, took: Duration) -> String {
    let (items, bytes) = gauge.read();
    match work.counts() {
        Some(_) => per_second(&Figure { items, time: took, ..Figure::default() }),
        None => format!("{:.1} MiB/s", rate(bytes, took)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_work_is_as_far_as_its_amount_or_its_time() {
        let second = Duration::from_secs(1);
        let plan = Plan { bytes: 1000, messages: 10, requests: 50, within: 10 * second };
        let gauge = Gauge::default();
        assert_eq!(share(Work::Bulk1, &plan, &gauge, second), 0.1);
        gauge.add(25, 900);
        assert_eq!(share(Work::Bulk1, &plan, &gauge, second), 0.9);
        assert_eq!(share(Work::Rpc1, &plan, &gauge, second), 0.5);
        assert_eq!(share(Work::Rpc1, &plan, &gauge, 20 * second), 1.0);
        assert_eq!(
            (speed(Work::Rpc1, &gauge, second), speed(Work::PerfUp, &gauge, second)),
            ("25 /s".into(), "0.0 MiB/s".into())
        );
    }
}
