//! `peerage limits`: every limit with its default, its value and its meaning.

use serde_json::json;

use crate::args::LimitsArgs;
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
    let rows = TABLE.iter().filter(|setting| args.all || setting.kind == Kind::Limit);
    let rows = rows.map(|setting| {
        [
            setting.name.to_owned(),
            (setting.show)(&defaults),
            (setting.show)(&values),
            setting.meaning.to_owned(),
        ]
    });
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
