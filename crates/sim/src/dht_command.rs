//! `peerage-sim dht`: scenarios of the DHT at 10,000 nodes.

use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Args;
use peerage_sim::dht::plot;
use peerage_sim::dht::policy::Kind;
use peerage_sim::dht::report::{Report, markdown_of_seeds};
use peerage_sim::dht::scenario::{SCENARIOS, Scenario, Settings, scenario};

/// What `dht` takes.
#[derive(Args)]
pub(crate) struct Dht {
    /// Scenarios by their number in the study; several with commas. Without it, all.
    #[arg(long, value_delimiter = ',')]
    scenario: Vec<u32>,
    /// Number of nodes. Without it, the scenario's own.
    #[arg(long)]
    nodes: Option<usize>,
    /// The seed.
    #[arg(long, default_value_t = 42, conflicts_with = "seeds")]
    seed: u64,
    /// Several seeds, such as 1..20, both ends included.
    #[arg(long, value_parser = range)]
    seeds: Option<RangeInclusive<u64>>,
    /// Whose rules: some of ours,p1,p2,p3,p4.
    #[arg(long, value_delimiter = ',', default_value = "ours,p1,p2,p3,p4")]
    policy: Vec<Kind>,
    /// Lookups for each row. Without it, the scenario's own number.
    #[arg(long)]
    lookups: Option<u64>,
    /// Simulated seconds of scenarios that go on for hours; of the calibration, after how many a connection that is not used ends. Without it, as long as the study says.
    #[arg(long)]
    seconds: Option<u64>,
    /// Checks the invariants while it runs, which takes longer.
    #[arg(long)]
    checks: bool,
    /// One JSON object for each run instead of tables.
    #[arg(long)]
    json: bool,
    /// Writes the tables into this file as well.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Draws the first scenario that compares policies, and how lookups grow with the network, into this file; the growth is in the tables as well.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Seeds that run at the same time.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
}

/// Runs it; true when every bar was met.
pub(crate) fn run(dht: &Dht) -> Result<bool, String> {
    let chosen = chosen(&dht.scenario)?;
    let seeds: Vec<u64> = dht.seeds.clone().unwrap_or(dht.seed..=dht.seed).collect();
    let mut text = String::new();
    let mut passed = true;
    let mut compared = None;
    for scenario in chosen {
        let reports = run_seeds(dht, scenario, &seeds);
        passed &= reports.iter().all(Report::passes);
        let tables = markdown_of_seeds(&reports);
        if dht.json {
            for report in &reports {
                println!("{}", serde_json::to_string(report).map_err(|error| error.to_string())?);
            }
        } else {
            print!("{tables}");
        }
        let _ = write!(text, "{tables}");
        if compared.is_none() {
            compared = reports.into_iter().find(|report| report.rows.len() > 2);
        }
    }
    if let Some(path) = &dht.svg {
        let growth = plot::growth(dht.seed, dht.lookups.unwrap_or(1_000));
        let tables =
            format!("### Growth with the network, quiet, all contacts warm\n\n{}\n", plot::table(&growth));
        if !dht.json {
            print!("{tables}");
        }
        let _ = write!(text, "{tables}");
        let report = compared.ok_or("--svg draws a comparison: choose scenario 1, 2, 3 or 4")?;
        std::fs::write(path, plot::svg(&report, &growth))
            .map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
    }
    if let Some(path) = &dht.out {
        std::fs::write(path, text)
            .map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
    }
    Ok(passed)
}

/// One thread for each job; what a run comes to does not depend on them.
fn run_seeds(dht: &Dht, scenario: &'static Scenario, seeds: &[u64]) -> Vec<Report> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..dht.jobs.clamp(1, seeds.len().max(1)) {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let report = scenario.run(&settings(dht, scenario, *seed));
                    if let Ok(mut done) = done.lock() {
                        done.push(report);
                    }
                }
            });
        }
    });
    let mut reports = done.into_inner().unwrap_or_default();
    reports.sort_by_key(|report: &Report| report.seed);
    reports
}

fn settings(dht: &Dht, scenario: &Scenario, seed: u64) -> Settings {
    Settings {
        nodes: dht.nodes.unwrap_or(scenario.nodes),
        seed,
        policies: dht.policy.clone(),
        lookups: dht.lookups,
        seconds: dht.seconds,
        checks: dht.checks,
    }
}

fn chosen(numbers: &[u32]) -> Result<Vec<&'static Scenario>, String> {
    if numbers.is_empty() {
        return Ok(SCENARIOS.iter().collect());
    }
    let find = |number: &u32| {
        scenario(*number).ok_or_else(|| {
            let known: Vec<String> = SCENARIOS.iter().map(|one| one.number.to_string()).collect();
            format!("there is no scenario {number} of the DHT: give some of {}", known.join(","))
        })
    };
    numbers.iter().map(find).collect()
}

fn range(text: &str) -> Result<RangeInclusive<u64>, String> {
    let parts = text
        .split_once("..")
        .and_then(|(first, last)| Some(first.parse().ok()?..=last.trim_start_matches('=').parse().ok()?));
    parts
        .filter(|range| !range.is_empty())
        .ok_or_else(|| format!("{text:?} is no range: give one such as 1..20"))
}
