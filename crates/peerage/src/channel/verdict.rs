//! What became of a message whose delivery somebody waits for.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use crate::error::SendError;

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The peer's receive queue has it: its application gets it, once.
    Delivered,
    /// It was refused, here or by the peer, and is not delivered.
    Refused(SendError),
    /// It was queued, and the connection ended before all of it was sent: it is not delivered.
    Lost(SendError),
    /// It was sent, and the connection ended before the peer said that it has it: it may have been delivered, or not.
    Unknown(SendError),
}

impl Verdict {
    /// Whether the peer has the message for certain.
    pub fn is_delivered(&self) -> bool {
        matches!(self, Verdict::Delivered)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Delivered => f.write_str("delivered"),
            Verdict::Refused(error) => write!(f, "refused: {error}"),
            Verdict::Lost(error) => write!(f, "never sent: {error}"),
            Verdict::Unknown(error) => write!(f, "sent, and not known to have arrived: {error}"),
        }
    }
}

/// The verdict on a message that was queued, when it comes. Dropping it changes nothing for the message.
#[derive(Debug)]
#[must_use = "await it to learn what became of the message"]
pub struct Receipt(pub(crate) oneshot::Receiver<Verdict>);

/// Where the verdict is put in.
pub(crate) type Reply = oneshot::Sender<Verdict>;

impl Future for Receipt {
    type Output = Verdict;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Verdict> {
        // Whoever holds the other end answers before it drops it; only a node that is torn down does not.
        Pin::new(&mut self.0).poll(cx).map(|answered| answered.unwrap_or(Verdict::Unknown(SendError::Closed)))
    }
}
