//! How a command ends when it does not end well: one line on stderr and an exit code.

use std::fmt;
use std::io;
use std::process::ExitCode;

use clap::error::ErrorKind;
use peerage::StartError;

use crate::term::one_line;

/// Why a command failed, and what the shell is told.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
    /// Lines that help to find the reason, shown below the message.
    more: String,
}

impl Failure {
    /// Something went wrong: exit code 1.
    pub(crate) fn failed(message: impl fmt::Display) -> Self {
        Self { code: 1, message: one_line(&message.to_string()), more: String::new() }
    }

    /// The command was not used as it can be: exit code 2.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self { code: 2, ..Self::failed(message) }
    }

    /// Adds what helps to find the reason.
    pub(crate) fn with_more(mut self, more: String) -> Self {
        self.more = more;
        self
    }

    /// What went wrong, as one line.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Tells the user and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        crate::term::complain(&format!("error: {}", self.message));
        if !self.more.is_empty() {
            crate::term::complain(self.more.trim_end());
        }
        ExitCode::from(self.code)
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::NetworkName { .. }
            | StartError::Address(_)
            | StartError::Secrets(_)
            | StartError::ForeignWithSecret
            | StartError::Limits(_) => Self::usage(error),
            _ => Self::failed(error),
        }
    }
}

/// What the parser of the command line has to say: help as it is, an error as one line.
pub(crate) fn report_parsing(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => match error.print() {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Failure::failed(format!("standard output cannot be written: {error}")).report()
            }
            _ => ExitCode::SUCCESS,
        },
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(2)
        }
        _ => {
            let text = error.to_string();
            let is_extra =
                |part: &&str| !part.starts_with("Usage:") && !part.starts_with("For more information");
            let parts: Vec<_> = text.split("\n\n").map(str::trim).filter(is_extra).map(one_line).collect();
            let message = parts.join("; ");
            Failure::usage(message.strip_prefix("error: ").unwrap_or(&message)).report()
        }
    }
}
