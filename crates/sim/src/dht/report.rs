//! What a scenario measured, beside its bars: as text, as JSON, and over several seeds.

use std::fmt::Write;

use serde::Serialize;

use super::figures::{Figures, Median};
use super::policy::{Goal, Kind};
use super::scenario::{ALONE, scenario};

/// What one run of a scenario came to.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Its number in the study's list (dht.md D.2).
    pub scenario: u32,
    /// What it is.
    pub title: &'static str,
    /// Number of nodes.
    pub nodes: usize,
    /// What all followed from.
    pub seed: u64,
    /// The trace's hash: the same seed gives the same.
    pub hash: String,
    /// What lookups came to, policy by policy.
    pub rows: Vec<Row>,
    /// The figures that have bars, and others worth telling.
    pub measures: Vec<Measure>,
}

/// Lookups of one policy for one goal.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Whose rules.
    pub policy: &'static str,
    /// `get`, `closest` or `store`.
    pub goal: &'static str,
    /// `warm`: every contact is connected to. `mix`: only those to whom a node of that size would be.
    pub reach: &'static str,
    /// Under which circumstances, where a scenario has several.
    pub case: &'static str,
    /// What they came to.
    pub figures: Figures,
}

impl Row {
    /// A row of a table.
    pub fn new(kind: Kind, goal: Goal, reach: &'static str, figures: Figures) -> Self {
        let goal = match goal {
            Goal::Value => "get",
            Goal::Closest => "closest",
        };
        Self { policy: kind.name(), goal, reach, case: "", figures }
    }

    /// A row of stores: how long until the caller was told, and how many were told that enough have it.
    pub fn of_stores(kind: Kind, reach: &'static str, figures: Figures) -> Self {
        Self { goal: "store", ..Self::new(kind, Goal::Value, reach, figures) }
    }

    /// The same under these circumstances.
    pub fn case(self, case: &'static str) -> Self {
        Self { case, ..self }
    }
}

/// One figure, and the bar that it has to meet.
#[derive(Debug, Clone, Serialize)]
pub struct Measure {
    /// What was measured, with its unit.
    pub name: String,
    /// The figure.
    pub found: f64,
    /// What it must be.
    pub bar: Option<Bar>,
}

/// What a figure must be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bar {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
    /// What it is named after must not happen, and did.
    Never,
}

impl Measure {
    /// A figure that must not exceed `bar`.
    pub fn at_most(name: impl Into<String>, found: f64, bar: f64) -> Self {
        Self { name: name.into(), found, bar: Some(Bar::AtMost(bar)) }
    }

    /// A figure that must reach `bar`.
    pub fn at_least(name: impl Into<String>, found: f64, bar: f64) -> Self {
        Self { name: name.into(), found, bar: Some(Bar::AtLeast(bar)) }
    }

    /// What happened, in words, and must not. Reports of runs in which it did not happen know nothing of it.
    pub fn broken(what: impl Into<String>) -> Self {
        Self { name: what.into(), found: 1.0, bar: Some(Bar::Never) }
    }

    /// A figure without a bar.
    pub fn told(name: impl Into<String>, found: f64) -> Self {
        Self { name: name.into(), found, bar: None }
    }

    /// Whether it meets its bar. One without a bar does; one that is no number does not.
    pub fn passes(&self) -> bool {
        match self.bar {
            None => true,
            Some(Bar::AtMost(bar)) => self.found <= bar,
            Some(Bar::AtLeast(bar)) => self.found >= bar,
            Some(Bar::Never) => false,
        }
    }
}

impl Report {
    /// True when every bar is met.
    pub fn passes(&self) -> bool {
        self.measures.iter().all(Measure::passes)
    }

    /// Why the table has ours alone, where it does.
    fn note(&self) -> String {
        match scenario(self.scenario) {
            Some(scenario) if !scenario.compares => format!("{ALONE}\n\n"),
            _ => String::new(),
        }
    }

    /// As Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "### Scenario {}: {}\n\nN = {}, seed {}, hash `{}`\n\n",
            self.scenario, self.title, self.nodes, self.seed, self.hash
        );
        text.push_str(&self.note());
        text.push_str(&table_of_rows(&self.rows));
        text.push_str(&table_of_measures(std::slice::from_ref(self)));
        text.push_str(&list_of_broken(std::slice::from_ref(self)));
        text
    }
}

/// True when every bar is met with every seed. A seed whose report lacks a figure that has a bar does not meet it.
pub fn all_pass(reports: &[Report]) -> bool {
    reports.iter().all(Report::passes) && Line::of(reports).iter().all(|line| line.verdict() != MISS)
}

/// Several seeds of one scenario: medians with their intervals, and a bar is met only if each seed meets it.
pub fn markdown_of_seeds(reports: &[Report]) -> String {
    let Some(first) = reports.first() else { return String::new() };
    if reports.len() == 1 {
        return first.markdown();
    }
    let seeds: Vec<String> = reports.iter().map(|report| report.seed.to_string()).collect();
    let mut text = format!(
        "### Scenario {}: {}\n\nN = {}, seeds {}\n\n",
        first.scenario,
        first.title,
        first.nodes,
        seeds.join(" ")
    );
    text.push_str(&first.note());
    text.push_str(&table_of_rows(&merged(reports)));
    text.push_str(&table_of_measures(reports));
    text.push_str(&list_of_broken(reports));
    let hashes: Vec<String> =
        reports.iter().map(|report| format!("{}: `{}`", report.seed, report.hash)).collect();
    let _ = writeln!(text, "Hashes: {}\n", hashes.join(", "));
    text
}

/// The medians of the rows, of the seeds that have them: a run that failed has none.
fn merged(reports: &[Report]) -> Vec<Row> {
    let Some(fullest) = reports.iter().max_by_key(|report| report.rows.len()) else { return Vec::new() };
    let of_place = |(place, row): (usize, &Row)| {
        let all: Vec<&Figures> =
            reports.iter().filter_map(|report| Some(&report.rows.get(place)?.figures)).collect();
        let of = |figure: fn(&Figures) -> f64| {
            let values = all.iter().map(|figures| figure(figures)).collect();
            Median::of(values).map_or(0.0, |median| median.median)
        };
        let figures = Figures {
            lookups: all.iter().map(|figures| figures.lookups).sum(),
            p50_ms: of(|figures| figures.p50_ms),
            p95_ms: of(|figures| figures.p95_ms),
            p99_ms: of(|figures| figures.p99_ms),
            p999_ms: of(|figures| figures.p999_ms),
            requests: of(|figures| figures.requests),
            warm_share: of(|figures| figures.warm_share),
            found: of(|figures| figures.found),
            recall: of(|figures| figures.recall),
            hops: of(|figures| figures.hops),
            ..Figures::default()
        };
        Row { figures, ..row.clone() }
    };
    fullest.rows.iter().enumerate().map(of_place).collect()
}

fn table_of_rows(rows: &[Row]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut text = String::from(
        "| policy | contacts | what | p50 ms | p95 | p99 | p99.9 | requests | found or recall | hops | warm |\n\
         | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for Row { policy, goal, reach, case, figures } in rows {
        let found = match *goal {
            "closest" => format!("{:.3}", figures.recall),
            _ => format!("{:.3} %", figures.found * 100.0),
        };
        let separator = if case.is_empty() { "" } else { ", " };
        let _ = writeln!(
            text,
            "| {policy} | {reach} | {goal}{separator}{case} | {:.0} | {:.0} | {:.0} | {:.0} | {:.1} | {found} | {:.2} | {:.0} % |",
            figures.p50_ms,
            figures.p95_ms,
            figures.p99_ms,
            figures.p999_ms,
            figures.requests,
            figures.hops,
            figures.warm_share * 100.0
        );
    }
    text.push('\n');
    text
}

/// What stands where a bar is not met.
const MISS: &str = "MISS";
/// Seeds that a line of the table names; the others are counted.
const MOST_SEEDS: usize = 10;
/// What broke is listed of so many runs; the others are counted.
const MOST_BROKEN: usize = 20;
/// Of what broke so many characters are printed.
const MOST_CHARACTERS: usize = 300;

/// One figure over all seeds.
struct Line<'a> {
    /// As the first report has it that has it at all.
    measure: &'a Measure,
    all: Vec<&'a Measure>,
    /// The seeds whose reports lack it.
    lacking: Vec<u64>,
}

impl<'a> Line<'a> {
    /// All figures that any of the reports has, in the order in which they appear. What must not happen is no figure.
    fn of(reports: &'a [Report]) -> Vec<Self> {
        let mut lines: Vec<Self> = Vec::new();
        for measure in reports.iter().flat_map(|report| &report.measures) {
            let is_there = lines.iter().any(|line| line.measure.name == measure.name);
            if !is_there && measure.bar != Some(Bar::Never) {
                lines.push(Self::new(measure, reports));
            }
        }
        lines
    }

    fn new(measure: &'a Measure, reports: &'a [Report]) -> Self {
        let mut line = Self { measure, all: Vec::new(), lacking: Vec::new() };
        for report in reports {
            match report.measures.iter().find(|other| other.name == measure.name) {
                Some(found) => line.all.push(found),
                None => line.lacking.push(report.seed),
            }
        }
        line
    }

    fn verdict(&self) -> &'static str {
        match self.measure.bar {
            None => "",
            Some(_) if self.lacking.is_empty() && self.all.iter().all(|measure| measure.passes()) => "PASS",
            Some(_) => MISS,
        }
    }

    fn bar(&self) -> String {
        match self.measure.bar {
            None | Some(Bar::Never) => String::new(),
            Some(Bar::AtMost(bar)) => format!("≤ {}", digits(bar)),
            Some(Bar::AtLeast(bar)) => format!("≥ {}", digits(bar)),
        }
    }

    /// Which seeds lack it, behind the verdict.
    fn lack(&self) -> String {
        if self.lacking.is_empty() {
            return String::new();
        }
        let named: Vec<String> = self.lacking.iter().take(MOST_SEEDS).map(u64::to_string).collect();
        let more = match self.lacking.len().saturating_sub(MOST_SEEDS) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let comma = if self.verdict().is_empty() { "" } else { ", " };
        format!("{comma}none of seed {}{more}", named.join(" "))
    }

    /// As a line of the table of several seeds.
    fn of_seeds(&self) -> Option<String> {
        let values: Vec<f64> = self.all.iter().map(|measure| measure.found).collect();
        let worst = match self.measure.bar {
            Some(Bar::AtLeast(_)) => values.iter().copied().fold(f64::INFINITY, f64::min),
            _ => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        };
        let median = Median::of(values)?;
        Some(format!(
            "| {} | {} | {} to {} | {} | {} | {}{} |",
            self.measure.name,
            digits(median.median),
            digits(median.low),
            digits(median.high),
            digits(worst),
            self.bar(),
            self.verdict(),
            self.lack()
        ))
    }

    /// As a line of the table of one seed.
    fn of_one(&self) -> String {
        let Measure { name, found, .. } = self.measure;
        format!("| {name} | {} | {} | {} |", digits(*found), self.bar(), self.verdict())
    }
}

fn table_of_measures(reports: &[Report]) -> String {
    let lines = Line::of(reports);
    if lines.is_empty() {
        return String::new();
    }
    let several = reports.len() > 1;
    let mut text = String::from(match several {
        true => {
            "| figure | median | 95 % interval | worst seed | bar | |\n| --- | ---: | ---: | ---: | ---: | --- |\n"
        }
        false => "| figure | found | bar | |\n| --- | ---: | ---: | --- |\n",
    });
    for line in &lines {
        let line = if several { line.of_seeds() } else { Some(line.of_one()) };
        let _ = line.map(|line| writeln!(text, "{line}"));
    }
    text.push('\n');
    text
}

/// What happened that must not, and with which seed.
fn list_of_broken(reports: &[Report]) -> String {
    let broken: Vec<(u64, &str)> = reports
        .iter()
        .flat_map(|report| report.measures.iter().map(|measure| (report.seed, measure)))
        .filter(|(_, measure)| measure.bar == Some(Bar::Never))
        .map(|(seed, measure)| (seed, measure.name.as_str()))
        .collect();
    if broken.is_empty() {
        return String::new();
    }
    let mut text = format!("{MISS}, since this must not happen and did:\n\n");
    for (seed, what) in broken.iter().take(MOST_BROKEN) {
        // Worlds name their seed themselves.
        let what = what.strip_prefix(&format!("seed {seed}, ")).unwrap_or(what);
        let line = what.split_whitespace().collect::<Vec<_>>().join(" ");
        let cut = line.char_indices().nth(MOST_CHARACTERS).map(|(at, _)| &line[..at]);
        let _ = writeln!(text, "- seed {seed}: {}{}", cut.unwrap_or(&line), cut.map_or("", |_| " …"));
    }
    if let Some(more) = broken.len().checked_sub(MOST_BROKEN).filter(|more| *more > 0) {
        let _ = writeln!(text, "- and {more} more");
    }
    text.push('\n');
    text
}

/// A figure with as many decimals as it needs to be told from its neighbours.
fn digits(figure: f64) -> String {
    // A sum of nothing is below zero by its sign.
    let figure = figure + 0.0;
    match figure.abs() {
        _ if figure.fract() == 0.0 => format!("{figure:.0}"),
        size if size >= 100.0 => format!("{figure:.0}"),
        size if size >= 10.0 => format!("{figure:.2}"),
        _ => format!("{figure:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(seed: u64, found: f64) -> Report {
        Report {
            scenario: 2,
            title: "15 % silent, 5 % slow",
            nodes: 10,
            seed,
            hash: format!("{seed:016x}"),
            rows: vec![Row::new(Kind::P1, Goal::Value, "warm", Figures::default())],
            measures: vec![Measure::at_most("get p50 ms", found, 220.0), Measure::told("stale share", 0.5)],
        }
    }

    #[test]
    fn a_bar_is_met_only_if_each_seed_meets_it() {
        let text = markdown_of_seeds(&[report(1, 200.0), report(2, 230.0), report(3, 210.0)]);
        assert!(text.contains("| get p50 ms | 210 | 200 to 230 | 230 | ≤ 220 | MISS |"), "{text}");
        assert!(report(1, 220.0).passes() && !report(1, f64::NAN).passes());
        assert!(report(1, 1.0).markdown().contains("| get p50 ms | 1 | ≤ 220 | PASS |"));
    }

    fn failed(seed: u64, why: &str) -> Report {
        Report {
            rows: Vec::new(),
            measures: vec![Measure::broken(format!("whole nodes: {why}"))],
            ..report(seed, 0.0)
        }
    }

    #[test]
    fn a_seed_that_failed_is_in_the_table_wherever_it_stands() {
        for reports in [[report(1, 200.0), failed(2, "no route")], [failed(2, "no route"), report(1, 200.0)]]
        {
            let text = markdown_of_seeds(&reports);
            assert!(
                text.contains("| get p50 ms | 200 | 200 to 200 | 200 | ≤ 220 | MISS, none of seed 2 |"),
                "{text}"
            );
            assert!(
                text.contains("| stale share | 0.5000 | 0.5000 to 0.5000 | 0.5000 |  | none of seed 2 |"),
                "{text}"
            );
            assert!(
                text.contains(
                    "\n\nMISS, since this must not happen and did:\n\n- seed 2: whole nodes: no route\n\n"
                ),
                "{text}"
            );
            assert!(text.contains("| p1 | warm | get |") && !all_pass(&reports), "{text}");
        }
        assert!(failed(2, "no route").markdown().contains("- seed 2: whole nodes: no route\n"));
    }

    #[test]
    fn a_seed_without_a_figure_does_not_meet_its_bar() {
        let mut without = report(2, 200.0);
        without.measures.remove(0);
        assert!(without.passes() && all_pass(&[report(1, 200.0), report(3, 210.0)]));
        assert!(!all_pass(&[report(1, 200.0), without.clone()]) && !all_pass(&[without, report(1, 200.0)]));
    }

    #[test]
    fn what_broke_is_told_with_its_seed_and_once() {
        let broken = |seed: u64| {
            let mut report = report(seed, 200.0);
            report
                .measures
                .push(Measure::broken(format!("seed {seed}, node 3: a rule\n{}", "x".repeat(400))));
            report
        };
        let text = markdown_of_seeds(&[report(1, 200.0), broken(7)]);
        assert!(text.contains("\n- seed 7: node 3: a rule xxx") && text.contains("x …\n"), "{text}");
        // All else was there and met its bar.
        assert!(text.contains("| 200 | ≤ 220 | PASS |") && !text.contains("none of seed"), "{text}");
        let many: Vec<Report> = (1..=30).map(broken).collect();
        let text = markdown_of_seeds(&many);
        assert!(
            text.contains("- seed 20: ") && !text.contains("- seed 21: ") && text.contains("- and 10 more\n"),
            "{text}"
        );
        assert!(text.lines().filter(|line| line.starts_with("- ")).all(|line| line.chars().count() < 320));
    }

    #[test]
    fn many_seeds_without_a_figure_are_counted() {
        let reports: Vec<Report> =
            (1..=30).map(|seed| if seed < 19 { failed(seed, "no") } else { report(seed, 1.0) }).collect();
        let text = markdown_of_seeds(&reports);
        assert!(text.contains("| MISS, none of seed 1 2 3 4 5 6 7 8 9 10 and 8 more |"), "{text}");
    }
}
