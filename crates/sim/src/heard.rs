//! What nodes said to one another, in plain text, for tests that look for what must not be told.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use peerage::{ConnectionId, PeerId, Tap};

/// All that one node said to one peer on one stream, or with the end of one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Who spoke: the node's name.
    pub from: String,
    /// To whom.
    pub to: PeerId,
    /// In plain text, negotiation included.
    pub bytes: Vec<u8>,
}

/// Keeps what the nodes of a world say, from [`World::listen_in`](crate::World::listen_in) on.
#[derive(Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<Lines>>);

/// By speaker, start, peer, connection and stream; the words at the end of a connection have the number after all streams.
type Lines = BTreeMap<(String, u64, PeerId, ConnectionId, u64), Vec<u8>>;

impl Heard {
    pub(crate) fn all(&self) -> Vec<Said> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let said = lines.iter();
        said.map(|((from, _, to, ..), bytes)| Said { from: from.clone(), to: *to, bytes: bytes.clone() })
            .collect()
    }

    /// What hears one start of a node.
    pub(crate) fn of(&self, from: &str, start: u64) -> Arc<dyn Tap> {
        Arc::new(Ear { heard: self.clone(), from: from.to_owned(), start })
    }
}

impl fmt::Debug for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Heard")
    }
}

struct Ear {
    heard: Heard,
    from: String,
    start: u64,
}

impl Tap for Ear {
    fn wrote(&self, to: &PeerId, connection: ConnectionId, stream: u64, bytes: &[u8]) {
        let mut lines = self.heard.0.lock().unwrap_or_else(PoisonError::into_inner);
        let line = (self.from.clone(), self.start, *to, connection, stream);
        lines.entry(line).or_default().extend_from_slice(bytes);
    }

    fn closed(&self, to: &PeerId, connection: ConnectionId, reason: &str) {
        self.wrote(to, connection, u64::MAX, reason.as_bytes());
    }
}
