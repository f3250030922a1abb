//! Many seeds: runs that are kept in a file as they end, and one summary line per scenario.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use peerage_sim::{Plan, SCENARIOS, Scenario};
use serde::{Deserialize, Serialize};

use crate::{Soak, say};

/// One run to do.
#[derive(Debug, Clone, Copy)]
struct Task {
    scenario: &'static Scenario,
    large: bool,
    seed: u64,
}

/// One run that was done, as a line of the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Line {
    scenario: String,
    large: bool,
    seed: u64,
    hash: String,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<String>,
    figures: BTreeMap<String, f64>,
    simulated_seconds: f64,
    packets: u64,
    real_seconds: f64,
}

/// Runs what isn't done yet. Whether everything passed.
pub(crate) fn run(soak: &Soak) -> Result<bool, String> {
    let tasks = tasks(soak)?;
    let mut done = match &soak.resume {
        Some(path) => read(path)?,
        None => Vec::new(),
    };
    let is_done = |task: &Task| done.iter().any(|line| line.is_of(task));
    let left: Vec<_> = tasks.iter().copied().filter(|task| !is_done(task)).collect();
    let jobs =
        soak.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).max(1);
    eprintln!("{} runs, {} of them done before; {jobs} at a time", tasks.len(), tasks.len() - left.len());
    let mut file = soak.resume.as_deref().map(open).transpose()?;
    let (next, (sender, ended)) = (AtomicUsize::new(0), mpsc::channel());
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(left.len()) {
            let (sender, next, left) = (sender.clone(), &next, &left);
            scope.spawn(move || {
                while let Some(task) = left.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if sender.send(run_task(task)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (number, line) in ended.iter().enumerate() {
            if let Some(file) = &mut file {
                write(file, &line)?;
            }
            tell(number + 1, left.len(), &line);
            done.push(line);
        }
        Ok::<_, String>(())
    })?;
    let wanted: Vec<_> = done.iter().filter(|line| tasks.iter().any(|task| line.is_of(task))).collect();
    summaries(&wanted).iter().for_each(|summary| say(&format!("{summary}\n")));
    Ok(wanted.iter().all(|line| line.failed.is_none()))
}

/// A figure as people read it.
pub(crate) fn figure(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value}") } else { format!("{value:.2}") }
}

fn tasks(soak: &Soak) -> Result<Vec<Task>, String> {
    if soak.seeds == 0 {
        return Err("--seeds 0 leaves nothing to run: give 1 or more".to_owned());
    }
    let scenarios: Vec<&'static Scenario> = match soak.scenario.as_slice() {
        [] => SCENARIOS.iter().collect(),
        names => names.iter().map(|name| crate::find(name)).collect::<Result<_, _>>()?,
    };
    let last = soak.first_seed.checked_add(soak.seeds).ok_or("the seeds go beyond the largest number")?;
    // Seed by seed, so that a soak that is ended early has something of everything.
    let of_seed = |seed| {
        let forms = |scenario: &&'static Scenario| {
            let (scenario, large) = (*scenario, scenario.has_large && !soak.small);
            [false, true].into_iter().filter(move |form| !form || large).map(move |large| Task {
                scenario,
                large,
                seed,
            })
        };
        scenarios.iter().flat_map(forms).collect::<Vec<_>>()
    };
    Ok((soak.first_seed..last).flat_map(of_seed).collect())
}

fn run_task(task: &Task) -> Line {
    let started = Instant::now();
    let plan = if task.large { Plan::LARGE } else { Plan::SMALL };
    let ran = catch_unwind(AssertUnwindSafe(|| task.scenario.run(task.seed, plan)));
    let real_seconds = started.elapsed().as_secs_f64();
    let mut line = Line {
        scenario: task.scenario.name.to_owned(),
        large: task.large,
        seed: task.seed,
        hash: String::new(),
        failed: None,
        figures: BTreeMap::new(),
        simulated_seconds: 0.0,
        packets: 0,
        real_seconds,
    };
    match ran {
        Ok(outcome) => {
            line.hash = outcome.hash;
            line.simulated_seconds = outcome.simulated.as_secs_f64();
            line.packets = outcome.packets;
            match outcome.result {
                Ok(report) => {
                    line.figures = report.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
                }
                Err(reason) => line.failed = Some(reason.to_string()),
            }
        }
        Err(_) => line.failed = Some("it panicked: the message stands above".to_owned()),
    }
    line
}

impl Line {
    fn is_of(&self, task: &Task) -> bool {
        (self.scenario.as_str(), self.large, self.seed) == (task.scenario.name, task.large, task.seed)
    }

    fn form(&self) -> String {
        if self.large { format!("{} (large)", self.scenario) } else { self.scenario.clone() }
    }
}

fn tell(number: usize, of: usize, line: &Line) {
    let form = line.form();
    match &line.failed {
        None => eprintln!("[{number}/{of}] {form} seed {}: passed in {:.1} s", line.seed, line.real_seconds),
        Some(reason) => {
            let large = if line.large { " --large" } else { "" };
            eprintln!("[{number}/{of}] {form} seed {}: FAILED: {reason}", line.seed);
            eprintln!(
                "    to replay it: cargo run --release -p peerage-sim -- replay --scenario {} --seed {}{large}",
                line.scenario, line.seed
            );
        }
    }
}

/// One line for each scenario and form, in the order of the scenarios.
fn summaries(lines: &[&Line]) -> Vec<String> {
    let forms = SCENARIOS.iter().flat_map(|scenario| [(scenario.name, false), (scenario.name, true)]);
    forms
        .filter_map(|(name, large)| {
            let own: Vec<_> =
                lines.iter().filter(|line| line.scenario == name && line.large == large).collect();
            let first = own.first()?;
            let failed = own.iter().filter(|line| line.failed.is_some()).count();
            let packets: u64 = own.iter().map(|line| line.packets).sum();
            let real: f64 = own.iter().map(|line| line.real_seconds).sum();
            let mut text = format!(
                "{}: {} seeds, {failed} failed; {packets} packets, {real:.0} s of computing",
                first.form(),
                own.len()
            );
            let names: BTreeMap<&String, ()> =
                own.iter().flat_map(|line| line.figures.keys()).map(|n| (n, ())).collect();
            for name in names.into_keys() {
                let mut values: Vec<f64> =
                    own.iter().filter_map(|line| line.figures.get(name).copied()).collect();
                values.sort_by(f64::total_cmp);
                let (least, middle, most) = (values[0], values[values.len() / 2], values[values.len() - 1]);
                text += &format!("; {name} {} / {} / {}", figure(least), figure(middle), figure(most));
            }
            Some(text)
        })
        .collect()
}

fn read(path: &Path) -> Result<Vec<Line>, String> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("{} cannot be read: {error}", path.display())),
    };
    let mut lines = Vec::new();
    for (number, text) in BufReader::new(file).lines().enumerate() {
        let text = text.map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
        match serde_json::from_str(&text) {
            Ok(line) => lines.push(line),
            // A soak that was killed while it wrote: that run is done again.
            Err(error) => eprintln!("line {} of {} is left out: {error}", number + 1, path.display()),
        }
    }
    Ok(lines)
}

fn open(path: &Path) -> Result<File, String> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.map_err(|error| format!("{} cannot be written: {error}", path.display()))
}

fn write(file: &mut File, line: &Line) -> Result<(), String> {
    let text = serde_json::to_string(line).map_err(|error| error.to_string())?;
    writeln!(file, "{text}").map_err(|error| format!("the result cannot be written: {error}"))
}
