//! The log: structured lines on stderr.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

/// Checks a `--log` value: a level, or filters by target.
pub(crate) fn parse(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let problem = || format!("give one of {}, or filters such as info,peerage=debug", LEVELS.join(", "));
    for part in text.split(',') {
        // A lone word that is no level would be taken for the name of a target.
        if !part.contains('=') && !LEVELS.contains(&part) {
            return Err(problem());
        }
    }
    EnvFilter::builder().parse(text).map(|_| text.to_owned()).map_err(|_| problem())
}

/// Starts the log; what was logged before is lost.
pub(crate) fn start(filter: &str) {
    let filter = EnvFilter::builder().parse_lossy(filter);
    let log = tracing_subscriber::fmt().with_env_filter(filter);
    // It fails when there is a log already, which then stays.
    let _ = log.with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).try_init();
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn levels_and_filters_are_taken_and_other_words_are_not() {
        for good in ["info", "off", "info,peerage=debug", "peerage_transport=trace"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in ["", "loud", "info,loud", "peerage=loud"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
