//! `peerage limits`: every limit with its default, its value and its meaning. First those that a settings file can change, by their names there.

use peerage::LimitPlace;
use serde_json::json;

use crate::args::LimitsArgs;
use crate::control::{session, socket};
use crate::failure::Failure;
use crate::settings::{self, Kind, Settings, TABLE};
use crate::term::{plain_table, say};

/// Carries out `peerage limits`.
pub(crate) fn run(args: &LimitsArgs) -> Result<(), Failure> {
    let defaults = Settings::default();
    let values = match &args.config {
        Some(path) => settings::load(path).map_err(Failure::usage)?,
        None => defaults.clone(),
    };
    let others = peerage::limits().into_iter().map(|limit| {
        [
            limit.name.to_owned(),
            limit.value.clone(),
            limit.value,
            format!("{} ({})", limit.meaning, place(limit.place)),
        ]
    });
    let rows = TABLE.iter().filter(|setting| args.all || setting.kind == Kind::Limit);
    let rows = rows.map(|setting| {
        [
            setting.name.to_owned(),
            (setting.show)(&defaults),
            (setting.show)(&values),
            setting.meaning.to_owned(),
        ]
    });
    let rows = rows.chain(others).chain(of_program());
    if args.json {
        for [name, default, value, meaning] in rows {
            say(&json!({"name": name, "default": default, "value": value, "meaning": meaning}).to_string());
        }
        return Ok(());
    }
    let mut table = plain_table();
    table.set_header(["name", "default", "value", "meaning"]);
    for row in rows {
        table.add_row(row);
    }
    say(&table.trim_fmt());
    Ok(())
}

fn place(place: LimitPlace) -> &'static str {
    match place {
        LimitPlace::Code => "said in the code of an application",
        LimitPlace::Fixed => "fixed",
    }
}

/// Why a limit that is listed here stands in no settings file; `None` for what is no such limit.
pub(crate) fn why_no_setting(name: &str) -> Option<&'static str> {
    let others =
        peerage::limits().into_iter().find(|limit| limit.name == name).map(|limit| place(limit.place));
    others.or_else(|| of_program().any(|[own, ..]| own == name).then_some(place(LimitPlace::Fixed)))
}

/// The fixed limits of the program itself.
fn of_program() -> impl Iterator<Item = [String; 4]> {
    let seconds = |time: std::time::Duration| format!("{} s", time.as_secs());
    let rows = [
        ("control.max_line_bytes", session::MAX_LINE_BYTES.to_string(), "Bytes of one command"),
        ("control.max_running", session::MAX_RUNNING.to_string(), "Commands of one session that run at once"),
        (
            "control.max_waiting_lines",
            session::MAX_WAITING_LINES.to_string(),
            "Replies and events that wait for a slow reader",
        ),
        ("control.max_sessions", socket::MAX_SESSIONS.to_string(), "Command sessions at once"),
        (
            "metrics.max_connections",
            crate::metrics::MAX_CONNECTIONS.to_string(),
            "Connections for metrics at once; more wait",
        ),
        ("metrics.timeout", seconds(crate::metrics::PATIENCE), "How long one of them may take"),
        ("settings.max_file_bytes", settings::MAX_FILE_BYTES.to_string(), "Bytes of a settings file"),
    ];
    rows.into_iter().map(|(name, value, meaning)| {
        [name.to_owned(), value.clone(), value, format!("{meaning} ({})", place(LimitPlace::Fixed))]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::fs;

    const HEADING: &str = "\n## Limits\n";

    /// ARCHITECTURE.md's table of limits, as the code has them. The tests of each limit are written by hand, so they stay as they are in `found`; that each
    /// limit names some that exist is checked with the other documents.
    fn table(found: &str) -> String {
        let defaults = Settings::default();
        let settings = TABLE.iter().filter(|setting| setting.kind == Kind::Limit).map(|setting| {
            let value = (setting.show)(&defaults).replace('"', "");
            (setting.name.to_owned(), value, setting.meaning.to_owned())
        });
        let others = peerage::limits().into_iter().map(|limit| {
            (limit.name.to_owned(), limit.value, format!("{} ({})", limit.meaning, place(limit.place)))
        });
        let of_program = of_program().map(|[name, value, _, meaning]| (name, value, meaning));
        let tests = tests_of(found);
        let rows = settings.chain(others).chain(of_program).map(|(name, value, meaning)| {
            let tests = tests.get(name.as_str()).copied().unwrap_or_default();
            format!("| `{name}` | {value} | {meaning} | {tests} |\n")
        });
        let head =
            "| limit | default | what it bounds | tests that it holds |\n|---|---|---|---|\n".to_owned();
        head + &rows.collect::<String>()
    }

    /// The last cell of each row, by the limit's name.
    fn tests_of(table: &str) -> HashMap<&str, &str> {
        let rows = table.lines().map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
        rows.filter_map(|cells| match cells[..] {
            ["", name, _, _, tests, ""] => Some((name.trim_matches('`'), tests)),
            _ => None,
        })
        .collect()
    }

    /// what the documents say of limits is what holds.
    #[test]
    fn the_table_of_limits_in_the_architecture_is_the_one_of_the_code() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../ARCHITECTURE.md");
        let text = fs::read_to_string(path).unwrap();
        let (before, rest) = text.split_once(HEADING).expect("there is a section on limits");
        let (section, after) = rest.split_once("\n## ").expect("another section follows");
        let start = section.find("| limit |").expect("it has a table");
        let (words, found) = section.split_at(start);
        let wanted = table(found);
        if std::env::var_os("PEERAGE_WRITE_LIMITS").is_some() {
            fs::write(path, format!("{before}{HEADING}{words}{wanted}\n## {after}")).unwrap();
            return;
        }
        let differs = wanted.lines().zip(found.lines()).find(|(wanted, found)| wanted != found);
        assert_eq!(
            found.trim_end(),
            wanted.trim_end(),
            "first difference: {differs:?}; run this test with PEERAGE_WRITE_LIMITS=1 to write the table"
        );
    }
}
