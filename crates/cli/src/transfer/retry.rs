//! A transfer over as many streams as it takes, within bounds: after a broken connection the next attempt goes on where the
//! receiver says that it stands.

use std::time::Duration;

use super::pipe::PipeError;
use super::send::{Patience, SendError, Sent, send};
use super::source::Source;
use super::{BLOCK_BYTES, ChunkRead, ChunkWrite, OnProgress, Progress};

/// How often and how soon a broken transfer is tried again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retries {
    /// Attempts after the first one that may bring nothing. One after which the receiver has a block more does not count.
    pub(crate) most: u32,
    /// The wait before the first of them; it doubles with each.
    pub(crate) first_wait: Duration,
    /// The longest wait.
    pub(crate) longest_wait: Duration,
}

impl Retries {
    /// Five.
    pub(crate) const DEFAULT_MOST: u32 = 5;

    /// The usual waits, `most` times.
    pub(crate) fn up_to(most: u32) -> Self {
        Self { most, first_wait: Duration::from_millis(500), longest_wait: Duration::from_secs(8) }
    }

    fn wait(&self, failed: u32) -> Duration {
        let doubled = 2u32.saturating_pow(failed.saturating_sub(1));
        self.first_wait.saturating_mul(doubled).min(self.longest_wait)
    }
}

/// Where the streams to the receiver come from. Opening reconnects where that is needed.
pub(crate) trait Route {
    /// The half that brings the receiver's answers.
    type Read: ChunkRead;
    /// The half that takes the file.
    type Write: ChunkWrite;

    /// A new stream to the receiver.
    ///
    /// # Errors
    /// [`SendError::Unreachable`] when another attempt may do, [`SendError::NotSupported`] when none will.
    fn open(&mut self) -> impl Future<Output = Result<(Self::Read, Self::Write), SendError>> + Send;
}

/// Sends the file, again and again within the bounds of `retries` when the way to the receiver breaks.
///
/// # Errors
/// The last attempt's [`SendError`]. A receiver that can't be reached at first, or that refuses, is not asked again.
pub(crate) async fn send_with_retries<W: Route>(
    source: &Source,
    route: &mut W,
    retries: Retries,
    patience: Patience,
    progress: OnProgress<'_>,
) -> Result<Sent, SendError> {
    // How far the receiver was at the best, once it has answered.
    let mut reached = None;
    let mut failed = 0;
    loop {
        let mut at = None;
        let attempt = match route.open().await {
            Ok(stream) => send(source, stream, patience, progress, &mut at).await,
            Err(error) => Err(error),
        };
        let error = match attempt {
            Ok(sent) => return Ok(sent),
            Err(error) => error,
        };
        if !is_worth_another(&error, reached.is_some()) {
            return Err(error);
        }
        if let (Some(at), Some(before)) = (at, reached)
            && at >= before + BLOCK_BYTES as u64
        {
            failed = 0;
        }
        reached = reached.max(at);
        failed += 1;
        if failed > retries.most {
            return Err(error);
        }
        let wait = retries.wait(failed);
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        progress(Progress::Retrying { attempt: failed, of: retries.most, cause: error.to_string(), wait_ms });
        tokio::time::sleep(wait).await;
    }
}

fn is_worth_another(error: &SendError, answered_before: bool) -> bool {
    match error {
        SendError::Pipe(PipeError::Frame(_)) => false,
        SendError::Pipe(_) => true,
        // Bytes from before this attempt may be what was wrong; they are gone now.
        SendError::Failed { offset, .. } => *offset > 0,
        // A receiver that has not noticed yet that the last stream broke is still busy with it.
        SendError::Refused(_) | SendError::Unreachable(_) => answered_before,
        SendError::NotSupported(_) | SendError::Source(_) => false,
    }
}
