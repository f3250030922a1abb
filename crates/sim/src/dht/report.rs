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
        }
    }

    fn verdict(&self) -> &'static str {
        match self.bar {
            None => "",
            Some(_) if self.passes() => "PASS",
            Some(_) => "MISS",
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
        text
    }
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
    let merged: Vec<Row> = first
        .rows
        .iter()
        .enumerate()
        .map(|(place, row)| {
            let of = |figure: fn(&Figures) -> f64| {
                let values = reports.iter().filter_map(|report| report.rows.get(place));
                Median::of(values.map(|row| figure(&row.figures)).collect())
                    .map_or(0.0, |median| median.median)
            };
            let figures = Figures {
                lookups: row.figures.lookups * reports.len(),
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
        })
        .collect();
    text.push_str(&table_of_rows(&merged));
    text.push_str(&table_of_measures(reports));
    let hashes: Vec<String> =
        reports.iter().map(|report| format!("{}: `{}`", report.seed, report.hash)).collect();
    let _ = writeln!(text, "Hashes: {}\n", hashes.join(", "));
    text
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

fn table_of_measures(reports: &[Report]) -> String {
    let Some(first) = reports.first().filter(|report| !report.measures.is_empty()) else {
        return String::new();
    };
    let several = reports.len() > 1;
    let mut text = String::from(match several {
        true => {
            "| figure | median | 95 % interval | worst seed | bar | |\n| --- | ---: | ---: | ---: | ---: | --- |\n"
        }
        false => "| figure | found | bar | |\n| --- | ---: | ---: | --- |\n",
    });
    for measure in &first.measures {
        let all: Vec<&Measure> = reports
            .iter()
            .filter_map(|report| report.measures.iter().find(|other| other.name == measure.name))
            .collect();
        let bar = match measure.bar {
            None => String::new(),
            Some(Bar::AtMost(bar)) => format!("≤ {}", digits(bar)),
            Some(Bar::AtLeast(bar)) => format!("≥ {}", digits(bar)),
        };
        let verdict = all.iter().find(|measure| !measure.passes()).unwrap_or(&measure).verdict();
        let values: Vec<f64> = all.iter().map(|measure| measure.found).collect();
        let Some(median) = Median::of(values.clone()) else { continue };
        let _ = if several {
            let worst = match measure.bar {
                Some(Bar::AtLeast(_)) => values.iter().copied().fold(f64::INFINITY, f64::min),
                _ => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            };
            writeln!(
                text,
                "| {} | {} | {} to {} | {} | {bar} | {verdict} |",
                measure.name,
                digits(median.median),
                digits(median.low),
                digits(median.high),
                digits(worst)
            )
        } else {
            writeln!(text, "| {} | {} | {bar} | {verdict} |", measure.name, digits(measure.found))
        };
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
}
