//! What the user sees: lines, numbers with their units, progress.

use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::time::Duration;

use comfy_table::{Cell, CellAlignment, ContentArrangement, LineStyle, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use crate::transfer::Progress;

/// Prints a line on stdout. Nobody may be reading it any more.
pub(crate) fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Prints a line on stderr.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Text as one line that can't command the terminal: what a peer or a file has put into a message may end up here.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        line.extend(word.chars().map(|char| if char.is_control() { '\u{fffd}' } else { char }));
    }
    line
}

/// A time in milliseconds, as the tables show it.
pub(crate) fn ms(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    if ms < 10.0 { format!("{ms:.2} ms") } else { format!("{ms:.0} ms") }
}

/// Bytes in the unit that suits them.
pub(crate) fn size(bytes: u64) -> String {
    match bytes as f64 {
        few if few < 1024.0 => format!("{bytes} B"),
        some if some < 1024.0 * 1024.0 => format!("{:.1} KiB", some / 1024.0),
        many => format!("{:.1} MiB", many / MIB),
    }
}

/// MiB per second.
pub(crate) fn rate(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / MIB / time.as_secs_f64().max(1e-6)
}

/// An empty table with a header.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()));
    table.set_header(header.iter().map(Cell::new));
    table
}

/// Aligns columns of numbers.
pub(crate) fn right(table: &mut Table, columns: &[usize]) {
    for column in columns {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// An empty table without lines, as wide as the terminal.
pub(crate) fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table
}

const MIB: f64 = 1024.0 * 1024.0;

/// Shows how far a transfer is: a bar on a terminal, now and then a line elsewhere.
pub(crate) struct Meter {
    shown: Mutex<Shown>,
}

enum Shown {
    Bar(ProgressBar),
    Lines { what: String, last: Instant },
    Nothing,
}

/// Without a terminal there is a line about a transfer under way as often as this.
const TIME_PER_LINE: Duration = Duration::from_secs(1);

impl Meter {
    /// A meter on stderr for what `what` names.
    pub(crate) fn new(what: &str) -> Self {
        let shown = if io::stderr().is_terminal() {
            let bar = ProgressBar::new(0).with_prefix(what.to_owned());
            let style = "{prefix} {msg} [{bar:30}] {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}";
            bar.set_style(ProgressStyle::with_template(style).unwrap_or(ProgressStyle::default_bar()));
            Shown::Bar(bar)
        } else {
            Shown::Lines { what: what.to_owned(), last: Instant::now() }
        };
        Self { shown: Mutex::new(shown) }
    }

    /// A meter that shows nothing.
    pub(crate) fn silent() -> Self {
        Self { shown: Mutex::new(Shown::Nothing) }
    }

    /// Takes what a transfer reports.
    pub(crate) fn show(&self, progress: &Progress) {
        match *progress {
            Progress::Hashing { done, total } => self.amount("hashing", done, total),
            Progress::Sending { done, total } => self.amount("sending", done, total),
            Progress::Resuming { at, total } => {
                self.remark(&format!("the receiver has {} of {} already", size(at), size(total)));
            }
            Progress::Retrying { attempt, of, ref cause, wait_ms } => {
                let wait = Duration::from_millis(wait_ms).as_secs_f64();
                self.remark(&format!("{}: attempt {attempt} of {of} in {wait:.1} s", one_line(cause)));
            }
        }
    }

    /// Takes what is shown away.
    pub(crate) fn clear(&self) {
        if let Shown::Bar(bar) = &*self.lock() {
            bar.finish_and_clear();
        }
    }

    fn amount(&self, doing: &'static str, done: u64, total: u64) {
        match &mut *self.lock() {
            Shown::Nothing => {}
            Shown::Bar(bar) => {
                if bar.message() != doing || bar.length() != Some(total) {
                    bar.set_message(doing);
                    bar.set_length(total);
                    bar.reset_eta();
                }
                bar.set_position(done);
            }
            Shown::Lines { what, last } => {
                if last.elapsed() >= TIME_PER_LINE {
                    let percent = done.saturating_mul(100).checked_div(total).unwrap_or(100);
                    complain(&format!("{what} {doing}: {percent} % ({} of {})", size(done), size(total)));
                    *last = Instant::now();
                }
            }
        }
    }

    fn remark(&self, remark: &str) {
        match &*self.lock() {
            Shown::Nothing => {}
            Shown::Bar(bar) => bar.suspend(|| complain(remark)),
            Shown::Lines { what, .. } => complain(&format!("{what}: {remark}")),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_breaks_the_line_or_commands_the_terminal() {
        assert_eq!(one_line("a\n  b\tc\u{1b}[2J \u{7}"), "a b c\u{fffd}[2J \u{fffd}");
    }

    #[test]
    fn numbers_have_units_that_suit_them() {
        assert_eq!(ms(Duration::from_micros(420)), "0.42 ms");
        assert_eq!(ms(Duration::from_millis(1234)), "1234 ms");
        assert_eq!((size(5), size(2048), size(3 << 20)), ("5 B".into(), "2.0 KiB".into(), "3.0 MiB".into()));
        assert!(rate(1 << 20, Duration::ZERO).is_finite());
    }
}
