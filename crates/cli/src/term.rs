//! What the user sees: lines, numbers with their units, progress.

use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use comfy_table::{Cell, CellAlignment, ContentArrangement, LineStyle, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use tokio::time::Instant;

use crate::transfer::Progress;

/// Why something could not be printed on stdout: what went wrong first.
static UNPRINTED: OnceLock<Unprinted> = OnceLock::new();

struct Unprinted {
    kind: io::ErrorKind,
    text: String,
}

/// Prints a line on stdout. That it could not be is [`unprinted`].
pub(crate) fn say(line: &str) {
    let _ = print(&[line]);
}

/// Prints lines on stdout, and says whether they were taken. That they were not is [`unprinted`], too.
pub(crate) fn print(lines: &[impl AsRef<str>]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let printed = lines.iter().try_for_each(|line| writeln!(out, "{}", line.as_ref()));
    printed.and_then(|()| out.flush()).inspect_err(note)
}

/// Writes these bytes as they are to stdout. That they could not be is [`unprinted`].
pub(crate) fn bytes(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(bytes).and_then(|()| out.flush()).inspect_err(note);
}

fn note(error: &io::Error) {
    UNPRINTED.get_or_init(|| Unprinted { kind: error.kind(), text: error.to_string() });
}

/// Why not all was printed that was to be. Whoever closes a pipe, as `head` does, has read enough of it: that is no error.
pub(crate) fn unprinted() -> Option<String> {
    let Unprinted { kind, text } = UNPRINTED.get()?;
    (*kind != io::ErrorKind::BrokenPipe).then(|| format!("standard output cannot be written: {text}"))
}

/// Whether what is printed goes to anybody. A stdout that was closed is the null device by now, which takes everything.
pub(crate) fn is_read() -> bool {
    let out = io::stdout().as_fd().try_clone_to_owned().and_then(|out| File::from(out).metadata());
    match (out, fs::metadata("/dev/null")) {
        (Ok(out), Ok(null)) => !out.file_type().is_char_device() || out.rdev() != null.rdev(),
        _ => true,
    }
}

/// Whether what is printed goes to a terminal.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
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
        line.extend(word.chars().map(harmless));
    }
    line
}

/// Text that can't command the terminal, but keeps its lines: what others have written.
pub(crate) fn lines(text: &str) -> String {
    let keeps = |char| if matches!(char, '\n' | '\t') { char } else { harmless(char) };
    text.replace("\r\n", "\n").chars().map(keeps).collect()
}

/// A JSON value as one line. What could command the terminal can only stand within its strings, and is escaped there.
pub(crate) fn json(value: &Value) -> String {
    let mut line = String::new();
    for char in value.to_string().chars() {
        // All of them fit into one such escape.
        match commands(char) {
            true => line.push_str(&format!("\\u{:04x}", u32::from(char))),
            false => line.push(char),
        }
    }
    line
}

fn harmless(char: char) -> char {
    if commands(char) { '\u{fffd}' } else { char }
}

/// Whether a terminal does something at this character instead of showing it: controls, and what turns the direction in which text is read.
fn commands(char: char) -> bool {
    let turns = matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    char.is_control() || turns
}

/// A number of things.
pub(crate) fn counted(number: u64, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{plural}")
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
    fn nothing_that_others_wrote_turns_the_text_or_leaves_its_lines() {
        assert_eq!(one_line("a\u{202e}b\u{2066}c\u{200f}"), "a\u{fffd}b\u{fffd}c\u{fffd}");
        assert_eq!(
            lines("a\r\n\tb\rc\u{1b}]0;d\u{9b}2J\u{202e}\n"),
            "a\n\tb\u{fffd}c\u{fffd}]0;d\u{fffd}2J\u{fffd}\n"
        );
        let value = serde_json::json!({"text": "a\n\u{1b}\u{9b}2J\u{7f}\u{202e}é"});
        let line = json(&value);
        assert_eq!(line, "{\"text\":\"a\\n\\u001b\\u009b2J\\u007f\\u202eé\"}");
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), value);
    }

    #[test]
    fn numbers_have_units_that_suit_them() {
        assert_eq!(ms(Duration::from_micros(420)), "0.42 ms");
        assert_eq!(ms(Duration::from_millis(1234)), "1234 ms");
        assert_eq!((size(5), size(2048), size(3 << 20)), ("5 B".into(), "2.0 KiB".into(), "3.0 MiB".into()));
        assert!(rate(1 << 20, Duration::ZERO).is_finite());
    }
}
