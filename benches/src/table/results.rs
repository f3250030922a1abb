//! What is written down: the figures with what they were measured on.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use serde::Serialize;
use serde_json::{Value, json};

use super::bars::Bar;
use super::print::{self, Row};
use super::weight::Weights;

/// On what was measured, and how.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Setting {
    commit: String,
    date: String,
    processor: String,
    processors: usize,
    kernel: String,
    command: String,
    rounds: u32,
    scale: f64,
}

impl Setting {
    pub(crate) fn read(rounds: u32, scale: f64) -> Self {
        let unknown = || "unknown".to_owned();
        let first_line = |path: &str| Some(std::fs::read_to_string(path).ok()?.lines().next()?.to_owned());
        let model = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        });
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        Self {
            commit: commit().unwrap_or_else(unknown),
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            processor: model.unwrap_or_else(unknown),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: first_line("/proc/sys/kernel/osrelease").unwrap_or_else(unknown),
            command: format!("cargo run --release -p peerage-bench -- {}", arguments.join(" ")),
            rounds,
            scale,
        }
    }
}

/// The checkout's commit, and whether something was changed since.
fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let folder = env!("CARGO_MANIFEST_DIR");
        let output = Command::new("git").arg("-C").arg(folder).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let hash = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() { hash } else { format!("{hash} with changes that are not committed") })
}

/// Whether a file can be made or replaced there.
pub(crate) fn is_writable(file: &Path) -> bool {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    folder.is_dir()
        && !file.is_dir()
        && (!file.exists() || OpenOptions::new().append(true).open(file).is_ok())
}

/// All of it for programs.
pub(crate) fn json(setting: &Setting, rows: &[Row], bars: &[Bar], weights: Option<&Weights>) -> Value {
    json!({ "setting": setting, "rows": rows, "bars": bars, "weight": weights })
}

/// What stands below the table: how the peers were set, and what to know when reading it.
pub(crate) fn notes(setting: &Setting, rows: &[Row], weights: Option<&Weights>) -> String {
    let mut lines = vec![format!(
        "{} rounds after a warm-up, amounts × {}; medians, and of the ratios the median of the rounds' ratios. CPU: both processes, over the measured part.",
        setting.rounds, setting.scale
    )];
    lines.push("Authentication is mutual and nothing is resumed. What TLS agreed on:".to_owned());
    lines.extend(agreed(rows).into_iter().map(|(what, who)| format!("- {what}: {}", who.join(", "))));
    if let Some(weights) = weights {
        for (name, weight) in [("peerage", &weights.ours), ("raw quinn", &weights.raw_quinn)] {
            lines.push(format!(
                "Weight of {name}: {} crates, {:.0} CPU s for a cold release build of a hello-world.",
                weight.crates, weight.cpu_seconds
            ));
        }
    }
    lines.join("\n")
}

/// Suite and group, and in whose rows they were taken.
fn agreed(rows: &[Row]) -> BTreeMap<String, Vec<String>> {
    let mut agreed: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in rows {
        let unknown = "unknown";
        let suite = row.suite.as_deref().unwrap_or(unknown);
        let group = row.group.as_deref().unwrap_or(unknown);
        let peers = agreed.entry(format!("{suite}, {group}")).or_default();
        let name = row.peer.trim_end_matches(", joined");
        if !peers.iter().any(|peer| peer == name) {
            peers.push(name.to_owned());
        }
    }
    agreed
}

/// The results file.
pub(crate) fn markdown(setting: &Setting, rows: &[Row], bars: &[Bar], weights: Option<&Weights>) -> String {
    let mut text = format!(
        "# Speed\n\nWritten by `{}` at commit {}, on {} ({} × {}, Linux {}).\n\n{}\n\n{}\n\n## What must be reached\n\n",
        setting.command,
        setting.commit,
        setting.date,
        setting.processors,
        setting.processor,
        setting.kernel,
        notes(setting, rows, weights),
        print::markdown(rows),
    );
    let head = ["", "work", "asked", "came to"].map(str::to_owned);
    text.push_str(&format!(
        "{}\n{}\n",
        print::line(&head),
        print::line(&head.clone().map(|_| "---".to_owned()))
    ));
    for bar in bars {
        let came = bar.came.map_or("–".to_owned(), |came| format!("{} {}", print::digits(came), bar.unit));
        let cells = [bar.word().to_owned(), bar.work.clone(), bar.asked.clone(), came.trim().to_owned()];
        text.push_str(&format!("{}\n", print::line(&cells)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_results_say_what_they_were_measured_on() {
        let setting = Setting { scale: 1.0, ..Setting::read(5, 1.0) };
        let bar = Bar {
            work: "rtt".to_owned(),
            asked: "ours p50: ≤ 1.15 × raw-quinn".to_owned(),
            came: Some(1.02),
            unit: "",
            reached: Some(true),
        };
        let text = markdown(&setting, &[], std::slice::from_ref(&bar), None);
        assert!(text.contains("| PASS | rtt | ours p50: ≤ 1.15 × raw-quinn | 1.02 |"), "{text}");
        assert!(text.contains(&setting.kernel) && text.contains(&setting.commit), "{text}");
        let json = json(&setting, &[], &[bar], None);
        assert_eq!(
            (json["bars"][0]["reached"].as_bool(), json["setting"]["rounds"].as_u64()),
            (Some(true), Some(5))
        );
    }

    #[test]
    fn a_file_in_a_folder_that_is_not_there_cannot_be_written() {
        assert!(!is_writable(Path::new("/no/such/folder/speed.md")));
        assert!(!is_writable(Path::new("/")));
        assert!(is_writable(Path::new("speed-that-is-not-there.md")));
    }
}
