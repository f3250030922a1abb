//! SIGINT and SIGTERM.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// The signals that ask the program to end. While this lives they don't kill it.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// When the system gives no signal handler.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::failed(format!("signals can't be handled: {error}")))
        };
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Waits for one, and names it.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }

    /// Runs `work` until it is done or a signal comes.
    ///
    /// # Errors
    /// What `work` fails with, or that it was interrupted.
    pub(crate) async fn unless<T>(
        &mut self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            biased;
            result = work => result,
            signal = self.next() => Err(Failure::failed(format!("interrupted by {signal}"))),
        }
    }

    /// Lets the next signal end the program at once, with exit code 1.
    pub(crate) fn exit_at_next(mut self) {
        tokio::spawn(async move {
            let signal = self.next().await;
            crate::term::complain(&format!("error: stopped at once by a second {signal}"));
            std::process::exit(1);
        });
    }
}
