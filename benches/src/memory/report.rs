//! What was measured, for people and for programs.

use comfy_table::{CellAlignment, Table, presets};
use serde_json::json;

use peerage_bench_peer::FIRST_CONNECTIONS as FIRST;

use super::{BARE, Row};

/// The most bytes that one of our connections may add to resident memory, on either side.
const BAR: f64 = 48.0 * 1024.0;
/// The most that it may take of what bare quinn's takes.
const BAR_RATIO: f64 = 1.25;

pub(super) fn table(rows: &[Row], count: usize) {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header([
        "side",
        "peer",
        "resident KiB",
        "ratio",
        "heap KiB",
        "ratio",
        "resident MiB before the first",
    ]);
    for row in rows {
        let base = base(rows, row);
        table.add_row([
            row.side.to_string(),
            row.peer.to_owned(),
            format!("{:.1}", row.resident / 1024.0),
            format!("{:.2}", row.resident / base.resident),
            row.heap.map_or("not counted".to_owned(), |heap| format!("{:.1}", heap / 1024.0)),
            heap_ratio(row, base).map_or("–".to_owned(), |ratio| format!("{ratio:.2}")),
            format!("{:.1}", row.fixed / 1024.0 / 1024.0),
        ]);
    }
    for column in 2..7 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    println!("growth per idle connection, of {count} after the first {FIRST}");
    println!("{table}");
    for row in rows.iter().filter(|row| row.peer == "ours") {
        let (bytes, ratio) = (row.resident, row.resident / base(rows, row).resident);
        let word = |holds| if holds { "reached" } else { "MISSED" };
        println!("{}: at most {:.0} KiB resident: {}", row.side, BAR / 1024.0, word(bytes <= BAR));
        println!("{}: at most {BAR_RATIO} of bare quinn: {}", row.side, word(ratio <= BAR_RATIO));
    }
    if rows.iter().all(|row| row.heap.is_none()) {
        println!("the heap is counted when the benchmark is built with --features count-heap");
    }
}

pub(super) fn json(rows: &[Row], count: usize) {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            json!({
                "peer": row.peer,
                "side": row.side.to_string(),
                "resident_bytes": row.resident.round(),
                "resident_ratio": row.resident / base(rows, row).resident,
                "heap_bytes": row.heap.map(f64::round),
                "heap_ratio": heap_ratio(row, base(rows, row)),
                "fixed_resident_bytes": row.fixed,
            })
        })
        .collect();
    println!("{}", json!({ "work": "memory", "connections": count, "rows": rows }));
}

/// Bare quinn's row of the same side.
fn base<'a>(rows: &'a [Row], row: &'a Row) -> &'a Row {
    rows.iter().find(|other| other.side == row.side && other.peer == BARE).unwrap_or(row)
}

fn heap_ratio(row: &Row, base: &Row) -> Option<f64> {
    row.heap.zip(base.heap).map(|(ours, bare)| ours / bare)
}
