//! What the matrix prints.

use std::fmt;

use comfy_table::{Table, presets};
use serde_json::{Value, json};

use crate::matrix::{Cells, Check, Verdict, Way};

/// Prints the cells of each implementation, and how many there were. True when some were run and none failed.
pub(crate) fn print(checks: &[Check], columns: &[(String, Cells)], as_json: bool) -> bool {
    let mut count = Count::default();
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(
        ["check".to_owned(), "way".to_owned()]
            .into_iter()
            .chain(columns.iter().map(|(name, _)| name.clone())),
    );
    let mut reasons: Vec<(&str, String, Vec<String>)> = Vec::new();
    for check in checks {
        for way in Way::BOTH {
            let mut row = vec![check.name().to_owned(), way.to_string()];
            for (name, cells) in columns {
                let skipped = Verdict::Skipped("not run".to_owned());
                let verdict = cells.get(&(*check, way)).unwrap_or(&skipped);
                let (word, why) = count.add(verdict);
                row.push(word.to_owned());
                if as_json {
                    println!("{}", cell(name, *check, way, word, why));
                } else if let Some(why) = why {
                    let (reason, cell) = (format!("{word}: {why}"), format!("{}, {way}", check.name()));
                    match reasons.iter_mut().find(|(of, known, _)| of == name && *known == reason) {
                        Some((_, _, cells)) => cells.push(cell),
                        None => reasons.push((name, reason, vec![cell])),
                    }
                }
            }
            table.add_row(row);
        }
    }
    if !as_json {
        println!("{table}");
        for (name, reason, cells) in reasons {
            let all = cells.len() == checks.len() * Way::BOTH.len();
            println!("{name}: {reason} ({})", if all { "every row".to_owned() } else { cells.join("; ") });
        }
    }
    let judged = columns.iter().any(|(name, cells)| {
        name.starts_with("go") && cells.values().any(|verdict| *verdict == Verdict::Pass)
    });
    if !judged {
        say(
            as_json,
            json!({}),
            "no independent judge: go, whose QUIC and TLS share no code with ours, did not run",
        );
    }
    say(as_json, count.to_json(), &count.to_string());
    count.failed == 0
}

/// The cells by verdict.
#[derive(Default)]
struct Count {
    passed: u32,
    failed: u32,
    not_applicable: u32,
    skipped: u32,
}

impl Count {
    /// Counts a cell: its word, and its reason if it has one.
    fn add<'a>(&mut self, verdict: &'a Verdict) -> (&'static str, Option<&'a str>) {
        let (number, word, why) = match verdict {
            Verdict::Pass => (&mut self.passed, "PASS", None),
            Verdict::Fail(why) => (&mut self.failed, "FAIL", Some(why.as_str())),
            Verdict::NotApplicable(why) => (&mut self.not_applicable, "N/A", Some(*why)),
            Verdict::Skipped(why) => (&mut self.skipped, "SKIPPED", Some(why.as_str())),
        };
        *number += 1;
        (word, why)
    }

    fn run(&self) -> u32 {
        self.passed + self.failed
    }

    fn to_json(&self) -> Value {
        json!({"run": self.run(), "passed": self.passed, "failed": self.failed,
            "not_applicable": self.not_applicable, "skipped": self.skipped})
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, not_applicable, skipped } = self;
        let run = self.run();
        write!(
            f,
            "{run} cells run, {passed} passed, {failed} failed ({not_applicable} not applicable, {skipped} skipped)"
        )
    }
}

fn say(as_json: bool, mut facts: Value, text: &str) {
    if as_json {
        facts["summary"] = json!(text);
        println!("{facts}");
    } else {
        println!("{text}");
    }
}

fn cell(name: &str, check: Check, way: Way, word: &str, why: Option<&str>) -> Value {
    json!({"implementation": name, "check": check.name(), "way": way.to_string(), "verdict": word, "reason": why})
}
