//! The figures, for people and for programs.

use comfy_table::{CellAlignment, Table, presets};
use peerage_bench_peer::{Negotiated, Work};
use serde::Serialize;

use super::bars::Bar;
use super::figures::{Metric, Runs, cpu_each, cpu_scale, metrics, spread};
use super::plan::Entry;

/// One row of the table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Row {
    pub(crate) work: Work,
    pub(crate) peer: String,
    pub(crate) metric: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) more_is_better: bool,
    pub(crate) median: Option<f64>,
    pub(crate) min: Option<f64>,
    pub(crate) max: Option<f64>,
    /// To which row of the same work.
    pub(crate) base: &'static str,
    pub(crate) ratio: Option<f64>,
    /// Processor seconds of both sides, in `cpu_unit`; with the main figure of a row only.
    pub(crate) cpu: Option<f64>,
    pub(crate) cpu_unit: &'static str,
    pub(crate) lost: u64,
    pub(crate) rounds: usize,
    pub(crate) disturbed: usize,
    pub(crate) suite: Option<String>,
    pub(crate) group: Option<String>,
    /// Why there are no figures.
    pub(crate) does_not_apply: Option<String>,
    /// Rounds that ended wrongly, and why the last one did.
    pub(crate) failed: usize,
    pub(crate) failure: Option<String>,
}

/// All rows, work by work.
pub(crate) fn rows(runs: &Runs, negotiated: impl Fn(&Entry) -> Negotiated) -> Vec<Row> {
    let mut rows = Vec::new();
    for entry in runs.entries() {
        for (index, metric) in metrics(entry.work).into_iter().enumerate() {
            if index > 0 && runs.excuse(entry).is_some() {
                continue;
            }
            rows.push(row(runs, entry, metric, index == 0, negotiated(entry)));
        }
    }
    rows
}

fn row(runs: &Runs, entry: &Entry, metric: Metric, main: bool, negotiated: Negotiated) -> Row {
    let figures = spread(&runs.series(entry, metric));
    let figure = |pick: fn((f64, f64, f64)) -> f64| Some(pick(figures?) * metric.unit.1);
    let base = entry.base();
    let ratio = runs.find(entry.work, base).and_then(|base| runs.ratio((entry, metric), (base, metric)));
    let (scale, cpu_unit) = cpu_scale(entry.work);
    let cpu = spread(&runs.series(entry, cpu_each())).map(|(median, ..)| median * scale);
    let (disturbed, rounds) = runs.disturbed(entry);
    let (failed, failure) = runs.failures(entry);
    Row {
        work: entry.work,
        peer: entry.label(),
        metric: metric.name,
        unit: metric.unit.0,
        more_is_better: metric.more_is_better,
        median: figure(|(median, ..)| median),
        min: figure(|(_, least, _)| least),
        max: figure(|(_, _, most)| most),
        base,
        ratio,
        cpu: if main && entry.work != Work::Memory { cpu } else { None },
        cpu_unit,
        lost: runs.lost(entry),
        rounds,
        disturbed,
        suite: negotiated.suite,
        group: negotiated.group,
        does_not_apply: runs.excuse(entry).map(str::to_owned),
        failed,
        failure: failure.map(str::to_owned),
    }
}

const COLUMNS: [&str; 9] = ["work", "peer", "figure", "median", "min – max", "ratio", "to", "CPU", "notes"];

/// The table as people read it.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(COLUMNS);
    rows.iter().for_each(|row| {
        table.add_row(cells(row));
    });
    for column in [3, 4, 5, 7] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

/// The same as Markdown.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let mut lines = vec![line(&COLUMNS.map(str::to_owned)), line(&COLUMNS.map(|_| "---".to_owned()))];
    lines.extend(rows.iter().map(|row| line(&cells(row))));
    lines.join("\n")
}

/// One line of a Markdown table.
pub(crate) fn line(cells: &[String]) -> String {
    format!("| {} |", cells.join(" | "))
}

fn cells(row: &Row) -> [String; 9] {
    let figure = format!("{}, {}", row.metric, row.unit);
    let shown = |figure: Option<f64>| figure.map_or("–".to_owned(), digits);
    let between = row.min.zip(row.max).map(|(min, max)| format!("{} – {}", digits(min), digits(max)));
    let ratio = row.ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.2}"));
    let cpu = row.cpu.map_or(String::new(), |cpu| format!("{} {}", digits(cpu), row.cpu_unit));
    let mut notes: Vec<String> =
        row.does_not_apply.iter().map(|why| format!("does not apply: {why}")).collect();
    if let Some(failure) = &row.failure {
        notes.push(format!("{} failed: {failure}", row.failed));
    }
    if row.lost > 0 {
        notes.push(format!("{} lost", row.lost));
    }
    if row.disturbed > 0 {
        notes.push(format!("{} of {} rounds disturbed", row.disturbed, row.rounds));
    }
    [
        row.work.name(),
        row.peer.clone(),
        figure,
        shown(row.median),
        between.unwrap_or_default(),
        ratio,
        row.base.to_owned(),
        cpu,
        notes.join("; "),
    ]
}

/// Three digits that say something.
pub(crate) fn digits(figure: f64) -> String {
    match figure.abs() {
        size if size >= 100.0 => format!("{figure:.0}"),
        size if size >= 10.0 => format!("{figure:.1}"),
        size if size >= 1.0 || size == 0.0 => format!("{figure:.2}"),
        _ => format!("{figure:.3}"),
    }
}

/// Each bar on a line of its own.
pub(crate) fn bars(bars: &[Bar]) -> String {
    let lines: Vec<_> = bars
        .iter()
        .map(|bar| {
            let came = bar.came.map_or("–".to_owned(), digits);
            format!("{:<13} {:<12} {} → {came} {}", bar.word(), bar.work, bar.asked, bar.unit)
                .trim_end()
                .to_owned()
        })
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_row() -> Row {
        Row {
            work: Work::Bulk1,
            peer: "ours-1452".to_owned(),
            metric: "rate",
            unit: "MiB/s",
            more_is_better: true,
            median: Some(512.25),
            min: Some(500.0),
            max: Some(600.0),
            base: "raw-quinn-tuned",
            ratio: Some(0.987),
            cpu: Some(3.51),
            cpu_unit: "s/GiB",
            lost: 3,
            rounds: 5,
            disturbed: 1,
            suite: Some("TLS13_AES_128_GCM_SHA256".to_owned()),
            group: None,
            does_not_apply: None,
            failed: 1,
            failure: Some("the connection: it broke".to_owned()),
        }
    }

    #[test]
    fn a_row_tells_its_figures_and_what_was_wrong_with_them() {
        let text = markdown(&[a_row()]);
        let expected = "| bulk-1 | ours-1452 | rate, MiB/s | 512 | 500 – 600 | 0.99 | raw-quinn-tuned | 3.51 s/GiB | 1 failed: the connection: it broke; 3 lost; 1 of 5 rounds disturbed |";
        assert_eq!(text.lines().nth(2), Some(expected));
        assert!(table(&[a_row()]).contains("raw-quinn-tuned"));
    }

    #[test]
    fn a_row_as_json_has_the_same_names_as_the_works() {
        let json = serde_json::to_value(a_row()).unwrap_or_default();
        assert_eq!((json["work"].as_str(), json["median"].as_f64()), (Some("bulk-1"), Some(512.25)));
        assert_eq!(json["disturbed"].as_u64(), Some(1));
    }

    #[test]
    fn figures_have_three_digits_that_say_something() {
        let shown: Vec<_> = [0.0, 0.01234, 1.234, 12.34, 1234.5].into_iter().map(digits).collect();
        assert_eq!(shown, ["0.00", "0.012", "1.23", "12.3", "1234"]);
    }
}
