//! Runs every work on every peer, interleaved, and prints the table and the bars.

mod bars;
mod figures;
mod once;
mod plan;
mod plot;
mod print;
mod programs;
mod results;
mod weight;
mod wire;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use peerage_bench_peer::{Ended, Negotiated, Outcome, Report, Work};

pub(crate) use figures::median;
use figures::{DISTURBED, Runs};
use once::Scale;
use plan::{Entry, PeerName};
use programs::Programs;

/// By how much the amounts of a quick run are smaller.
const QUICK: f64 = 0.12;
/// Rounds of the work `memory` at most: its figures hardly move, and a run takes half a minute.
const MEMORY_ROUNDS: u32 = 2;

/// After so many failures a row is left alone: each may take minutes to be noticed.
const MAX_FAILURES: usize = 2;

/// What to run.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Whom to measure. Those of other libraries are built in a workspace of their own when they are named.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "ours,raw-quinn")]
    peers: Vec<PeerName>,
    /// Which works; all but `weight` when none is named. `weight` counts the crates of a hello-world and takes the time of its cold build.
    #[arg(long, value_delimiter = ',', value_name = "WORK", value_parser = work)]
    works: Vec<Named>,
    /// Counted rounds; one more before them warms up. Default: 5, with `--quick` 2.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    reps: Option<u32>,
    /// Smaller amounts, without control rows: under three minutes on two cores.
    #[arg(long)]
    quick: bool,
    /// Multiplies the amounts of a full run.
    #[arg(long, value_name = "FACTOR", value_parser = factor, conflicts_with = "quick")]
    scale: Option<f64>,
    /// Prints one JSON object instead of the table.
    #[arg(long)]
    json: bool,
    /// Writes a plot of the ratios to raw quinn.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Writes the results as Markdown, with what they were measured on.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// A work that is named on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Named {
    Work(Work),
    Weight,
}

fn work(text: &str) -> Result<Named, String> {
    if text == "weight" {
        return Ok(Named::Weight);
    }
    Work::from_str(text, false).map(Named::Work).map_err(|_| {
        let names: Vec<_> = Work::all().iter().map(|work| work.name()).chain(["weight".to_owned()]).collect();
        let near = names
            .iter()
            .max_by(|a, b| strsim::jaro_winkler(a, text).total_cmp(&strsim::jaro_winkler(b, text)));
        let near = near.map(|name| format!("did you mean {name}? ")).unwrap_or_default();
        format!("{near}Give any of {}", names.join(", "))
    })
}

fn factor(text: &str) -> Result<f64, String> {
    let factor: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    if factor > 0.0 && factor <= 64.0 {
        Ok(factor)
    } else {
        Err("give a number above 0 and at most 64".to_owned())
    }
}

impl Options {
    fn rounds(&self) -> u32 {
        self.reps.unwrap_or(if self.quick { 2 } else { 5 })
    }

    fn scale(&self) -> Scale {
        Scale { factor: self.scale.unwrap_or(if self.quick { QUICK } else { 1.0 }) }
    }

    fn works(&self) -> Vec<Work> {
        let named = |work: &Work| self.works.is_empty() || self.works.contains(&Named::Work(*work));
        Work::all().iter().copied().filter(named).collect()
    }

    /// The rows, in their order.
    fn entries(&self) -> Vec<Entry> {
        let mut peers = self.peers.clone();
        peers.sort_by_key(|peer| (*peer == PeerName::Ours, *peer));
        peers.dedup();
        let of = |work: Work| {
            let quick = self.quick;
            peers
                .clone()
                .into_iter()
                .flat_map(move |peer| plan::entries(work, peer, quick))
                .collect::<Vec<_>>()
        };
        self.works().into_iter().flat_map(of).collect()
    }
}

pub(crate) async fn run(options: Options) -> Outcome<()> {
    if let Some(file) = options.svg.iter().chain(&options.out).find(|file| !results::is_writable(file)) {
        return Err(format!("{} cannot be written: does its folder exist?", file.display()).into());
    }
    let programs = Programs::prepare(&options.peers).await?;
    let runs = measure(&options, &programs).await?;
    let negotiated = negotiated(&programs, &runs).await;
    let weights = if options.works.contains(&Named::Weight) { Some(weight::measure().await?) } else { None };

    let of = |entry: &Entry| negotiated.get(&(entry.peer, entry.form)).cloned().unwrap_or_default();
    let rows = print::rows(&runs, of);
    let bars = bars::bars(&runs, weights.as_ref());
    let setting = results::Setting::read(options.rounds(), options.scale().factor);
    if options.json {
        println!("{}", results::json(&setting, &rows, &bars, weights.as_ref()));
    } else {
        println!("{}", print::table(&rows));
        println!("{}", results::notes(&setting, &rows, weights.as_ref()));
        println!("\nwhat must be reached:\n{}", print::bars(&bars));
    }
    if let Some(file) = &options.out {
        std::fs::write(file, results::markdown(&setting, &rows, &bars, weights.as_ref()))?;
    }
    if let Some(file) = &options.svg {
        std::fs::write(file, plot::svg(&rows))?;
    }
    match rows.iter().map(|row| row.failed).sum::<usize>() {
        0 => Ok(()),
        _ => Err("some runs ended wrongly: see the notes of their rows".into()),
    }
}

/// All rounds, each of which runs every row once.
async fn measure(options: &Options, programs: &Programs) -> Outcome<Runs> {
    let (entries, rounds) = (options.entries(), options.rounds());
    let mut runs = Runs::new(entries.clone());
    let takes_part = |entry: &Entry, round: u32| match entry.work {
        // Nothing is to be warmed up for it, and its figures hardly move.
        Work::Memory => (1..=MEMORY_ROUNDS).contains(&round),
        _ => true,
    };
    let steps = (0..=rounds).flat_map(|round| {
        entries.iter().filter(move |entry| takes_part(entry, round)).map(move |entry| (round, *entry))
    });
    let bar = progress(steps.clone().count() as u64);
    let mut told = None;
    for (round, entry) in steps {
        let name = if round == 0 { "warm-up".to_owned() } else { format!("round {round} of {rounds}") };
        if bar.is_hidden() && told != Some(round) {
            eprintln!("{name}");
        }
        told = Some(round);
        bar.set_message(format!("{name}: {} of {}", entry.work, entry.label()));
        if runs.excuse(&entry).is_none() && runs.failures(&entry).0 < MAX_FAILURES {
            let report = attempt(programs, entry, options.scale(), &bar).await;
            if round > 0 || report.done().is_none() {
                runs.note(entry, round, report);
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(runs)
}

/// One run. One that ends wrongly is told at once and costs no other run.
async fn attempt(programs: &Programs, entry: Entry, scale: Scale, bar: &ProgressBar) -> Report {
    let tell = |line: String| if bar.is_hidden() { eprintln!("{line}") } else { bar.println(line) };
    match once::once(programs, entry, scale).await {
        Ok(report) => {
            let load = report.done().and_then(|done| done.elsewhere).unwrap_or_default();
            if load > DISTURBED {
                tell(format!(
                    "disturbed: {} of {}: {load:.1} cores were busy elsewhere",
                    entry.work,
                    entry.label()
                ));
            }
            report
        }
        Err(error) => {
            tell(format!("failed: {error}"));
            let (peer, form) = (entry.peer.name().to_owned(), entry.form.to_owned());
            let ended = Ended::Failed { why: error.to_string() };
            Report { peer, form, work: entry.work, joined: entry.joined, ended }
        }
    }
}

fn progress(steps: u64) -> ProgressBar {
    let bar = ProgressBar::new(steps);
    if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} {msg} ({eta} left)") {
        bar.set_style(style);
    }
    bar
}

/// What TLS agreed on, for each program and form: as it says itself, or as it is read off the wire.
async fn negotiated(programs: &Programs, runs: &Runs) -> BTreeMap<(PeerName, &'static str), Negotiated> {
    let mut found: BTreeMap<_, Negotiated> = BTreeMap::new();
    for entry in runs.entries() {
        let key = (entry.peer, entry.form);
        if found.contains_key(&key) {
            continue;
        }
        let told = runs.done(entry).map(|done| &done.negotiated).find(|told| told.suite.is_some());
        let negotiated = match told {
            Some(told) => told.clone(),
            None => wire::negotiated(programs, *entry).await.unwrap_or_else(|error| {
                eprintln!("what {} agrees on cannot be told: {error}", entry.label());
                Negotiated::default()
            }),
        };
        found.insert(key, negotiated);
    }
    found
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn parse(line: &str) -> Result<Options, String> {
        let words = std::iter::once("table").chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.options).map_err(|error| error.to_string())
    }

    #[test]
    fn an_unknown_work_is_refused_with_the_nearest_and_all() {
        let error = parse("--works bulk-1,handshake").map(|_| ());
        assert!(error.as_ref().is_err_and(|text| text.contains("did you mean handshake-1?")), "{error:?}");
        assert!(error.is_err_and(|text| text.contains("weight")));
    }

    #[test]
    fn an_unknown_peer_is_refused_with_those_that_there_are() {
        let error = parse("--peers ours,quic-go").map(|_| ());
        assert!(error.as_ref().is_err_and(|text| text.contains("tcp-tls")), "{error:?}");
        assert!(
            parse("--reps 0").is_err() && parse("--scale 0").is_err() && parse("--quick --scale 2").is_err()
        );
    }

    #[test]
    fn the_defaults_are_all_works_of_ours_and_raw_quinn() {
        let options = parse("").unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((options.rounds(), options.works().len()), (5, Work::all().len()));
        let entries = options.entries();
        assert!(entries.iter().all(|entry| entry.peer.is_own()));
        assert_eq!(entries.first().map(|entry| entry.peer), Some(PeerName::RawQuinn));
    }

    #[test]
    fn works_and_peers_are_taken_in_the_order_of_the_table_whatever_the_command_says() {
        let options = parse("--works rtt,bulk-1 --peers ours,tcp-tls,raw-quinn,ours --quick");
        let options = options.unwrap_or_else(|error| panic!("{error}"));
        let labels: Vec<_> =
            options.entries().iter().map(|entry| format!("{} {}", entry.work, entry.label())).collect();
        let expected = [
            "bulk-1 raw-quinn",
            "bulk-1 raw-quinn-tuned",
            "bulk-1 raw-quinn-jumbo",
            "bulk-1 tcp-tls",
            "bulk-1 ours-1452",
            "bulk-1 ours",
            "rtt raw-quinn",
            "rtt tcp-tls",
            "rtt ours",
        ];
        assert_eq!(labels, expected);
        assert_eq!(options.rounds(), 2);
    }
}
