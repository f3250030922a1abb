//! What the user sees while scenarios of the DHT run, on stderr: on a terminal a line for each run that moves, elsewhere a line for each every minute.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};
use peerage_sim::dht::progress::Progress;

use crate::say;

/// How often lines move on a terminal.
const TICK: Duration = Duration::from_millis(250);

/// Where runs are shown.
pub(crate) struct Board {
    /// On a terminal: all lines, and the one that counts runs.
    lines: Option<(MultiProgress, ProgressBar)>,
    running: Mutex<BTreeMap<usize, Run>>,
}

struct Run {
    name: String,
    started: Instant,
    progress: Progress,
    bar: Option<ProgressBar>,
}

impl Board {
    /// How often a line is written where there is no terminal.
    pub(crate) const EVERY: Duration = Duration::from_secs(60);

    /// For so many runs.
    pub(crate) fn new(runs: usize) -> Self {
        let lines = std::io::stderr().is_terminal().then(|| {
            let (lines, all) = (MultiProgress::new(), ProgressBar::new(runs as u64));
            all.set_style(style("{pos} of {len} runs, {elapsed}"));
            (lines.clone(), lines.add(all))
        });
        Self { lines, running: Mutex::default() }
    }

    /// The run with this number begins.
    pub(crate) fn begin(&self, number: usize, scenario: u32, seed: u64, progress: &Progress) {
        let name = format!("scenario {scenario}, seed {seed}");
        let bar = self.lines.as_ref().map(|(lines, _)| {
            let bar = lines.add(ProgressBar::new_spinner());
            let told = progress.clone();
            let tell = move |_: &ProgressState, line: &mut dyn std::fmt::Write| {
                let _ = write!(line, "{told}");
            };
            bar.set_style(style("{spinner} {prefix}: {told}, {elapsed}").with_key("told", tell));
            bar.set_prefix(name.clone());
            bar.enable_steady_tick(TICK);
            bar
        });
        let run = Run { name, started: Instant::now(), progress: progress.clone(), bar };
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(number, run);
    }

    /// It has ended.
    pub(crate) fn end(&self, number: usize) {
        let run = self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
        if let (Some((lines, all)), Some(bar)) = (&self.lines, run.and_then(|run| run.bar)) {
            bar.finish_and_clear();
            lines.remove(&bar);
            all.inc(1);
        }
    }

    /// Says where each run is, where no terminal shows it.
    pub(crate) fn tell(&self) {
        if self.lines.is_some() {
            return;
        }
        for run in self.running.lock().unwrap_or_else(PoisonError::into_inner).values() {
            eprintln!("{}: {}, running for {} s", run.name, run.progress, run.started.elapsed().as_secs());
        }
    }

    /// Prints a table among the lines.
    pub(crate) fn print(&self, table: &str) {
        match &self.lines {
            Some((lines, _)) => lines.suspend(|| say(table)),
            None => say(table),
        }
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        if let Some((lines, all)) = &self.lines {
            all.finish_and_clear();
            let _ = lines.clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
