//! What the demo's user sees: steps as they happen and tables, or one JSON line per step.

use std::time::Duration;

use comfy_table::Table;
use serde::Serialize;
use serde_json::{Value, json};

use super::steps::{Done, Step};
use crate::control::millis;
use crate::term::{self, Meter, ms, right, table};

/// Prints for people or for programs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Show {
    json: bool,
}

impl Show {
    pub(super) fn new(json: bool) -> Self {
        Self { json }
    }

    /// A line for people.
    pub(super) fn say(&self, line: &str) {
        if !self.json {
            term::say(line);
        }
    }

    /// A table for people.
    pub(super) fn table(&self, table: &Table) {
        // The table pads its last column; nobody needs that.
        table.lines().for_each(|line| self.say(&format!("   {}", line.trim_end())));
    }

    /// Progress for people.
    pub(super) fn meter(&self, what: &str) -> Meter {
        if self.json { Meter::silent() } else { Meter::new(what) }
    }

    /// A step begins.
    pub(super) fn begin(&self, step: &Step) {
        self.say(&format!("\n{}. {}", step.number, step.title));
    }

    /// A step is done.
    pub(super) fn done(&self, step: &Step, took: Duration, done: &Done) {
        self.say(&format!("   done in {}: {}", ms(took), done.result));
        self.json(step, took, true, done.facts.clone());
    }

    /// A step failed.
    pub(super) fn failed(&self, step: &Step, took: Duration, message: &str) {
        let facts = json!({ "error": message });
        self.json(step, took, false, facts);
    }

    /// All steps once more.
    pub(super) fn summary(&self, steps: &[(&Step, Duration, String)]) {
        let mut table = table(&["", "step", "time", "result"]);
        for (step, took, result) in steps {
            table.add_row([step.number.to_string(), step.name.to_owned(), ms(*took), result.clone()]);
        }
        right(&mut table, &[2]);
        self.say("\nAll steps:");
        self.table(&table);
    }

    fn json(&self, step: &Step, took: Duration, ok: bool, facts: Value) {
        if !self.json {
            return;
        }
        let line = Line { step: step.name, ok, ms: millis(took), facts };
        term::say(&serde_json::to_string(&line).unwrap_or_default());
    }
}

/// One step for programs.
#[derive(Serialize)]
struct Line {
    step: &'static str,
    ok: bool,
    ms: f64,
    #[serde(flatten)]
    facts: Value,
}
