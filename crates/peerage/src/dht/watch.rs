//! Values as they change: a lookup, then a word from those who hold the value, again and again.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use peerage_dht::record::{Place, Record, Version};
use peerage_dht::{Class, Judged, Operation};
use peerage_identity::PeerId;
use tokio::time::Instant;

use super::handle::{Dht, DhtError};
use super::records::{Value, target_of, value_of};

/// After so long who holds the value is looked up anew: holders come and go.
const ROUND: Duration = Duration::from_secs(600);
/// A round that ends without news takes no less.
const LEAST_ROUND: Duration = Duration::from_secs(1);

/// What has become of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Update {
    /// This is the value now.
    Value(Value),
    /// Its publisher has taken it away.
    Removed {
        /// The publisher's number: what it puts later has a higher one.
        seq: u64,
    },
}

impl Update {
    /// The publisher's number.
    pub fn seq(&self) -> u64 {
        match self {
            Self::Value(value) => value.seq,
            Self::Removed { seq } => *seq,
        }
    }
}

impl Dht {
    /// The value that a node keeps under its own name, now and whenever it changes: a [`Stream`] whose first item is what stands there, or what will stand there first.
    /// Holders tell of a change at once; where none can, the value is looked up every half a minute. That a value lives longer is not told, and neither is that it has
    /// expired.
    ///
    /// An error ends it: [`DhtError::Off`], [`DhtError::Closed`], and at the start [`DhtError::TooMany`]; once it is under way it waits for room. Nothing happens before it is polled; dropping it ends all that is under way.
    pub fn watch(&self, publisher: PeerId, name: impl Into<Bytes>) -> Changes {
        let place = Place::Value { publisher, salt: name.into() };
        let watching = Watching { dht: self.clone(), place, known: None, is_told: false, has_looked: false };
        Changes { idle: Some(watching), under_way: None }
    }
}

/// A value as it changes: [`Dht::watch`].
#[must_use = "nothing happens before it is polled"]
pub struct Changes {
    idle: Option<Watching>,
    under_way: Option<Waiting>,
}

type Waiting = Pin<Box<dyn Future<Output = (Result<Update, DhtError>, Watching)> + Send>>;

impl Changes {
    /// Tells only of what has a higher number than `seq`, for who has that value already.
    pub fn after(mut self, seq: u64) -> Self {
        if let Some(watching) = &mut self.idle {
            watching.known = Some(Version { seq, not_after: u64::MAX, body_hash: [u8::MAX; 32] });
            watching.is_told = true;
        }
        self
    }

    /// The next one; `None` after an error. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<Update, DhtError>> {
        StreamExt::next(self).await
    }
}

impl Stream for Changes {
    type Item = Result<Update, DhtError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(mut watching) = self.idle.take() {
            self.under_way = Some(Box::pin(async move { (watching.change().await, watching) }));
        }
        let Some(waiting) = &mut self.under_way else { return Poll::Ready(None) };
        let (change, watching) = ready!(waiting.as_mut().poll(cx));
        self.under_way = None;
        self.idle = Some(watching).filter(|_| change.is_ok());
        Poll::Ready(Some(change))
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes").field("under_way", &self.under_way.is_some()).finish_non_exhaustive()
    }
}

/// What is watched, and what was told of it.
struct Watching {
    dht: Dht,
    place: Place,
    known: Option<Version>,
    /// Whether a value was told, so that its end is worth a word.
    is_told: bool,
    /// A round has begun, and ended without an error.
    has_looked: bool,
}

impl Watching {
    /// Waits for the next change.
    async fn change(&mut self) -> Result<Update, DhtError> {
        loop {
            let start = Instant::now();
            match self.look().await {
                Ok(found) => {
                    self.has_looked = true;
                    if let Some(update) = found.and_then(|record| self.take(&record)) {
                        return Ok(update);
                    }
                }
                // Somebody may come.
                Err(DhtError::NoContacts) => {}
                // Others are done soon.
                Err(DhtError::TooMany) if self.has_looked => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep_until(start + LEAST_ROUND).await;
        }
    }

    /// Waits for a record that is newer than what is known, for a round.
    async fn look(&self) -> Result<Option<Record>, DhtError> {
        let core = self.dht.core()?;
        let (network, target) = (core.network.clone(), target_of(core, &self.place)?);
        // A place with one publisher has one slot, which has no name.
        let rank = |version: Version| Bytes::copy_from_slice(&version.to_bytes());
        let known = self.known.map(|known| Judged { slot: Bytes::new(), rank: rank(known), is_final: false });
        let read = move |outcome: &peerage_dht::Outcome| {
            let found = outcome.values.first().map(|found| Record::open(&network, &found.value));
            found.transpose().map_err(|fault| DhtError::Record(fault.to_string()))
        };
        let wanted = Operation::Changed { target, known };
        self.dht.call(Ok(wanted), read).class(Class::Normal).deadline(ROUND).await
    }

    /// What is worth telling of a record.
    fn take(&mut self, record: &Record) -> Option<Update> {
        let version = *record.version();
        let before = self.known.filter(|known| *known < version).map(|known| (known.seq, known.body_hash));
        if self.known.is_some() && before.is_none() {
            return None;
        }
        self.known = Some(version);
        // It lives longer, and is what it was.
        if before == Some((version.seq, version.body_hash)) {
            return None;
        }
        let update = value_of(record).map_or(Update::Removed { seq: version.seq }, Update::Value);
        let was_told = std::mem::replace(&mut self.is_told, matches!(update, Update::Value(_)));
        (self.is_told || was_told).then_some(update)
    }
}

#[cfg(test)]
mod tests {
    use peerage_dht::record::{Draft, Network};
    use peerage_identity::NodeKey;

    use super::*;
    use crate::Node;

    fn record(seq: u64, not_after: u64, body: &'static [u8]) -> Record {
        let key = NodeKey::from_seed([7; 32]);
        let place = Place::Value { publisher: key.peer_id(), salt: Bytes::new() };
        let draft = Draft::new(place, seq, not_after, Bytes::from_static(body));
        Record::sign(&key, &Network::new("acme").unwrap(), draft).unwrap()
    }

    #[tokio::test]
    async fn what_has_changed_is_told_once_and_a_longer_life_is_not() {
        let node = Node::builder().start().await.unwrap();
        let watching = |changes: Changes| changes.idle.unwrap();
        let mut first = watching(node.dht().watch(node.peer_id(), "x"));
        let mut told = |seq, not_after, body| {
            first.take(&record(seq, not_after, body)).map(|update| match update {
                Update::Value(value) => (value.seq, Some(value.body)),
                Update::Removed { seq } => (seq, None),
            })
        };
        assert_eq!(told(1, 10, b""), None, "there was nothing, and there is nothing");
        assert_eq!(told(2, 10, b"a"), Some((2, Some("a".into()))));
        assert_eq!(told(2, 20, b"a"), None, "it lives longer");
        assert_eq!(told(1, 30, b"b"), None, "it is old");
        assert_eq!(told(3, 20, b""), Some((3, None)));
        assert_eq!(told(3, 30, b""), None);
        assert_eq!(told(4, 20, b"a"), Some((4, Some("a".into()))));
        let mut later = watching(node.dht().watch(node.peer_id(), "x").after(5));
        assert_eq!(later.take(&record(5, 99, b"a")), None);
        assert_eq!(later.take(&record(6, 10, b"")), Some(Update::Removed { seq: 6 }));
        node.close().await;
    }

    #[tokio::test]
    async fn without_a_dht_there_is_nothing_to_watch() {
        let node = Node::builder().start().await.unwrap();
        let mut changes = node.dht().watch(node.peer_id(), "x");
        assert_eq!(changes.next().await, Some(Err(DhtError::Off)));
        assert_eq!(changes.next().await, None);
        node.close().await;
    }
}
