//! `peerage-sim dht`: scenarios of the DHT at 10,000 nodes.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};

use clap::Args;
use peerage_sim::dht::plot;
use peerage_sim::dht::policy::Kind;
use peerage_sim::dht::progress::Progress;
use peerage_sim::dht::report::{Report, all_pass, markdown_of_seeds};
use peerage_sim::dht::scenario::{SCENARIOS, Scenario, Settings, scenario};

use crate::dht_progress::Board;
use crate::{say, unprinted};

/// Scenarios whose comparison is drawn: single lookups.
const DRAWN: [u32; 4] = [1, 2, 3, 4];

/// The one that runs whole nodes.
const CALIBRATION: u32 = 28;
/// Scenarios in which everybody can be dialled.
const WITHOUT_NAT: [u32; 4] = [1, 2, 4, CALIBRATION];

/// Seeds of one command: their results are kept until all are there.
const MOST_SEEDS: u64 = 10_000;
/// Lookups of one row: what each took is kept, and records last a day.
const MOST_LOOKUPS: u64 = 300_000;
/// What `--seconds` and `--idle-seconds` may be, at most.
const YEAR: u64 = 365 * 24 * 3_600;

/// What `dht` takes.
#[derive(Args)]
pub(crate) struct Dht {
    /// Scenarios by their number in the study; several with commas. Without it, all.
    #[arg(long, value_delimiter = ',')]
    scenario: Vec<u32>,
    /// Number of nodes, 10 to 1,000,000. Without it, the scenario's own.
    #[arg(long, value_parser = nodes)]
    nodes: Option<usize>,
    /// The seed.
    #[arg(long, default_value_t = 42, conflicts_with = "seeds")]
    seed: u64,
    /// Several seeds, such as 1..20, both ends included; 10,000 at most.
    #[arg(long, value_parser = range)]
    seeds: Option<RangeInclusive<u64>>,
    /// Whose rules: some of ours,p1,p2,p3,p4. Without it, all of them in scenarios 1,2,3,4,8,9,10, where the rules of other libraries run beside ours, and ours in the others: those
    /// libraries' rules say nothing of how nodes join, keep their tables and look after records. The bars are for ours.
    #[arg(long, value_delimiter = ',')]
    policy: Vec<Kind>,
    /// Lookups for each row, 1 to 300,000. Without it, the scenario's own number.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=MOST_LOOKUPS))]
    lookups: Option<u64>,
    /// Simulated seconds of scenarios that go on for hours, up to a year. Without it, as long as the study says.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=YEAR))]
    seconds: Option<u64>,
    /// Simulated seconds after which a connection for questions ends that is not used, up to a year; for scenario 28 alone. Without it, 5; nodes take 60 unless told otherwise.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=YEAR))]
    idle_seconds: Option<u64>,
    /// Share of requests that lose a packet, 0 to 1; not for scenario 28.
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    loss: f64,
    /// Share of nodes that nobody can dial and that don't know it, 0 to 1; not for scenarios 1, 2, 4 and 28.
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    nat: f64,
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
    /// Runs at the same time. Without it, one for each processor; each takes up to a gigabyte and a half at 10,000 nodes, of scenario 15 three.
    #[arg(long)]
    jobs: Option<usize>,
}

/// Runs it; true when every bar was met.
pub(crate) fn run(dht: &Dht) -> Result<bool, String> {
    let chosen = chosen(&dht.scenario)?;
    let seeds: Vec<u64> = dht.seeds.clone().unwrap_or(dht.seed..=dht.seed).collect();
    if dht.svg.is_some() && !chosen.iter().any(|scenario| DRAWN.contains(&scenario.number)) {
        return Err("--svg draws a comparison: choose scenario 1, 2, 3 or 4".to_owned());
    }
    check_policies(&dht.policy, &chosen)?;
    check_circumstances(dht, &chosen)?;
    // A run may take hours: whether its results can be written is seen before.
    for path in dht.out.iter().chain(&dht.svg) {
        write_nothing(path)?;
    }
    let mut written = Written { text: String::new(), path: dht.out.as_deref() };
    let mut passed = true;
    let mut compared = None;
    run_all(dht, &chosen, &seeds, |board, reports| {
        passed &= all_pass(&reports);
        let tables = markdown_of_seeds(&reports);
        written.add(&tables)?;
        if dht.json {
            for report in &reports {
                let line = serde_json::to_string(report).map_err(|error| error.to_string())?;
                board.print(&format!("{line}\n"));
            }
        } else {
            board.print(&tables);
        }
        if compared.is_none() {
            compared = reports.into_iter().find(|report| DRAWN.contains(&report.scenario));
        }
        // Without a file nobody would have what is still to run.
        match unprinted().filter(|_| dht.out.is_none() && dht.svg.is_none()) {
            Some(reason) => Err(format!("{reason}: the rest was not run")),
            None => Ok(()),
        }
    })?;
    if let (Some(path), Some(report)) = (&dht.svg, compared) {
        let growth = plot::growth(report.seed, dht.lookups.unwrap_or(1_000));
        let tables =
            format!("### Growth with the network, quiet, all contacts warm\n\n{}\n", plot::table(&growth));
        written.add(&tables)?;
        if !dht.json {
            say(&tables);
        }
        write(path, &plot::svg(&report, &growth.sizes))?;
    }
    Ok(passed)
}

/// The file that `--out` names: what has been measured so far, should the rest be given up.
struct Written<'a> {
    text: String,
    path: Option<&'a Path>,
}

impl Written<'_> {
    fn add(&mut self, tables: &str) -> Result<(), String> {
        self.text.push_str(tables);
        self.path.map_or(Ok(()), |path| write(path, &self.text))
    }
}

/// Makes the file if there is none, and changes nothing of one that is there.
fn write_nothing(path: &Path) -> Result<(), String> {
    // Who reads from a pipe would take it for the end.
    if path.metadata().is_ok_and(|there| !there.is_file() && !there.is_dir()) {
        return Ok(());
    }
    let opened = std::fs::OpenOptions::new().append(true).create(true).open(path);
    opened.map(drop).map_err(|error| format!("{} cannot be written: {error}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{} cannot be written: {error}", path.display()))
}

/// Runs all scenarios with all seeds, and hands over a scenario's reports when it and those before it are done. One thread for each job; what a run comes to does not
/// depend on them.
fn run_all(
    dht: &Dht,
    chosen: &[&'static Scenario],
    seeds: &[u64],
    mut ended: impl FnMut(&Board, Vec<Report>) -> Result<(), String>,
) -> Result<(), String> {
    let runs = chosen.len() * seeds.len();
    let processors = || std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = dht.jobs.unwrap_or_else(processors).clamp(1, runs.max(1));
    let (board, next, (sender, reports)) = (Board::new(runs), AtomicUsize::new(0), mpsc::channel());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let (sender, board, next) = (sender.clone(), &board, &next);
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(scenario) = chosen.get(number / seeds.len()) else { break };
                    let settings = settings(dht, scenario, seeds[number % seeds.len()]);
                    board.begin(number, scenario.number, settings.seed, &settings.progress);
                    let report = scenario.run(&settings);
                    board.end(number);
                    if sender.send((number, report)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let (mut done, mut told) = (BTreeMap::new(), 0);
        loop {
            match reports.recv_timeout(Board::EVERY) {
                Ok((number, report)) => drop(done.insert(number, report)),
                Err(RecvTimeoutError::Timeout) => board.tell(),
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            while (0..seeds.len()).all(|seed| done.contains_key(&(told + seed))) && told < runs {
                let of_scenario = (0..seeds.len()).filter_map(|seed| done.remove(&(told + seed))).collect();
                told += seeds.len();
                if let Err(error) = ended(&board, of_scenario) {
                    // What runs is waited for; nothing else begins.
                    next.store(runs, Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
    })
}

/// Others' rules run only where there is something to compare.
fn check_policies(policies: &[Kind], chosen: &[&Scenario]) -> Result<(), String> {
    let alone = numbers(chosen.iter().copied().filter(|scenario| !scenario.compares));
    if alone.is_empty() || policies.iter().all(|kind| *kind == Kind::Ours) {
        return Ok(());
    }
    let comparing = numbers(SCENARIOS.iter().filter(|scenario| scenario.compares));
    Err(format!(
        "--policy: ours alone run in {alone}, as the other libraries' rules say nothing of what happens there: leave it out, or give some of --scenario {comparing}"
    ))
}

/// What a scenario would take no notice of is refused.
fn check_circumstances(dht: &Dht, chosen: &[&Scenario]) -> Result<(), String> {
    let among = |without: &[u32]| {
        numbers(chosen.iter().copied().filter(|scenario| without.contains(&scenario.number)))
    };
    let refuse = |without: &[u32], what: &str, flag: &str| match among(without) {
        some if some.is_empty() => Ok(()),
        some => Err(format!(
            "{flag}: there is no model of {what} in {some}: leave it out, or give others with --scenario"
        )),
    };
    if dht.nat > 0.0 {
        refuse(&WITHOUT_NAT, "nodes that cannot be dialled", "--nat")?;
    }
    if dht.loss > 0.0 {
        refuse(&[CALIBRATION], "lost packets", "--loss")?;
    }
    let is_calibration = |scenario: &&Scenario| scenario.number == CALIBRATION;
    if dht.seconds.is_some() && chosen.iter().all(is_calibration) {
        return Err(format!(
            "scenario {CALIBRATION} ends with its last lookup: leave --seconds out (--idle-seconds says when its connections end)"
        ));
    }
    if dht.idle_seconds.is_some() && !chosen.iter().any(is_calibration) {
        return Err(format!("--idle-seconds is for scenario {CALIBRATION} alone: leave it out"));
    }
    Ok(())
}

/// The scenarios' numbers, with commas.
fn numbers<'a>(scenarios: impl Iterator<Item = &'a Scenario>) -> String {
    let numbers: Vec<String> = scenarios.map(|scenario| scenario.number.to_string()).collect();
    numbers.join(",")
}

fn settings(dht: &Dht, scenario: &Scenario, seed: u64) -> Settings {
    Settings {
        nodes: dht.nodes.unwrap_or(scenario.nodes),
        seed,
        policies: if dht.policy.is_empty() { Kind::ALL.to_vec() } else { dht.policy.clone() },
        lookups: dht.lookups,
        seconds: dht.seconds,
        idle_seconds: dht.idle_seconds,
        loss: dht.loss,
        nat: dht.nat,
        checks: dht.checks,
        progress: Progress::default(),
    }
}

fn chosen(numbers: &[u32]) -> Result<Vec<&'static Scenario>, String> {
    if numbers.is_empty() {
        return Ok(SCENARIOS.iter().collect());
    }
    let find = |number: &u32| {
        scenario(*number).ok_or_else(|| {
            format!(
                "there is no scenario {number} of the DHT: give some of {}",
                self::numbers(SCENARIOS.iter())
            )
        })
    };
    numbers.iter().map(find).collect()
}

fn range(text: &str) -> Result<RangeInclusive<u64>, String> {
    let parts = match text.split_once("..") {
        Some((first, last)) => first.parse().ok().zip(last.trim_start_matches('=').parse().ok()),
        None => text.parse().ok().map(|seed| (seed, seed)),
    };
    let range = parts.map(|(first, last): (u64, u64)| first..=last).filter(|range| !range.is_empty());
    let Some(range) = range else {
        return Err(format!("{text:?} is no range of seeds: give one such as 1..20, or a single seed"));
    };
    match range.end() - range.start() {
        most if most >= MOST_SEEDS => Err(format!("{text:?} are too many seeds: give {MOST_SEEDS} at most")),
        _ => Ok(range),
    }
}

fn nodes(text: &str) -> Result<usize, String> {
    let nodes = text.parse().ok().filter(|nodes| (10..=1_000_000).contains(nodes));
    nodes.ok_or_else(|| format!("{text:?} is no size of a network: give a number from 10 to 1000000"))
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| format!("{text:?} is no share: give a number from 0 to 1, such as 0.2"))
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command};

    use super::*;

    fn flags(args: &[&str]) -> Dht {
        let command = Dht::augment_args(Command::new("dht"));
        let matches = command.get_matches_from(["dht"].iter().chain(args));
        <Dht as clap::FromArgMatches>::from_arg_matches(&matches).expect("good flags")
    }

    #[test]
    fn what_a_scenario_takes_no_notice_of_is_refused() {
        let check = |args: &[&str]| {
            let dht = flags(args);
            check_circumstances(&dht, &chosen(&dht.scenario).expect("they are there"))
        };
        for good in [
            "--scenario 2,3 --loss 0.1",
            "--scenario 5 --nat 0.1 --seconds 60",
            "--scenario 28 --idle-seconds 60",
            "--scenario 5,28 --seconds 60 --idle-seconds 60",
            "--seconds 3600",
        ] {
            assert_eq!(check(&good.split(' ').collect::<Vec<_>>()), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("--scenario 28 --loss 0.1", "--loss: there is no model of lost packets in 28: leave it out"),
            ("--loss 0.1", "no model of lost packets in 28:"),
            ("--nat 0.1", "--nat: there is no model of nodes that cannot be dialled in 1,2,4,28:"),
            ("--scenario 28 --seconds 60", "--idle-seconds says"),
            ("--scenario 5 --idle-seconds 60", "--idle-seconds is for scenario 28 alone"),
        ] {
            let refused = check(&bad.split(' ').collect::<Vec<_>>()).expect_err(bad);
            assert!(refused.contains(why), "{bad}: {refused}");
        }
    }

    #[test]
    fn how_long_the_others_go_on_says_nothing_of_the_calibrations_connections() {
        let calibration = scenario(CALIBRATION).expect("it is there");
        let of = |args: &[&str]| settings(&flags(args), calibration, 1);
        assert_eq!(of(&["--seconds", "3600"]).idle_seconds, None);
        assert_eq!(of(&["--idle-seconds", "60"]).idle_seconds, Some(60));
    }

    #[test]
    fn others_rules_are_refused_where_there_is_nothing_to_compare() {
        let all: Vec<&Scenario> = SCENARIOS.iter().collect();
        let comparing: Vec<&Scenario> = SCENARIOS.iter().filter(|scenario| scenario.compares).collect();
        assert_eq!(check_policies(&[], &all), Ok(()));
        assert_eq!(check_policies(&[Kind::Ours], &all), Ok(()));
        assert_eq!(check_policies(&Kind::ALL, &comparing), Ok(()));
        let refused = check_policies(&[Kind::Ours, Kind::P2], &all).expect_err("not everywhere");
        assert!(refused.contains("5,7,11,12,13,14,15,25,28"), "{refused}");
        assert!(refused.contains("--scenario 1,2,3,4,8,9,10"), "{refused}");
    }

    #[test]
    fn no_more_seeds_are_taken_than_can_be_kept() {
        assert_eq!(range("1..20"), Ok(1..=20));
        assert_eq!(range("18446744073709551615"), Ok(u64::MAX..=u64::MAX));
        for bad in ["20..1", "1..", "x", "-1..3"] {
            assert!(range(bad).is_err_and(|said| said.contains("is no range of seeds")), "{bad}");
        }
        for many in ["1..10001", "0..18446744073709551615"] {
            assert!(range(many).is_err_and(|said| said.contains("give 10000 at most")), "{many}");
        }
        assert!(range("1..10000").is_ok());
    }

    #[test]
    fn a_place_where_nothing_can_be_written_is_noticed_at_once_and_a_file_that_is_there_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("results.md");
        std::fs::write(&file, "before").expect("a file");
        assert_eq!(write_nothing(&file), Ok(()));
        assert_eq!(std::fs::read_to_string(&file).expect("it is there"), "before");
        assert!(write_nothing(&folder.path().join("no/such/results.md")).is_err());
        let out = folder.path().join("no/such/results.md").display().to_string();
        let dht = flags(&["--scenario", "1", "--nodes", "10", "--lookups", "1", "--out", &out]);
        let refused = run(&dht).expect_err("it cannot be written");
        assert!(refused.contains("results.md cannot be written"), "{refused}");
    }

    #[test]
    fn the_help_says_which_scenarios_compare() {
        let comparing = numbers(SCENARIOS.iter().filter(|scenario| scenario.compares));
        let help = Dht::augment_args(Command::new("dht")).render_long_help().to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(help.contains(&format!("all of them in scenarios {comparing},")), "{help}");
        // What was measured: 3.1 GB.
        assert!(help.contains("a gigabyte and a half at 10,000 nodes, of scenario 15 three"), "{help}");
    }
}
