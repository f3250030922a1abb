//! What the node has moved in all, by protocol and by kind of peer: the connections that there are, and the sum of those that were.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use peerage_peers::{ConnId, PeerClass};
use peerage_transport::{Connection, Direction, ProtocolTraffic, TrafficTotals};

/// The node's count. It never goes back: a connection's bytes pass into the sums when it is forgotten, and when its peer becomes another kind.
#[derive(Debug, Default)]
pub(crate) struct NodeTraffic(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    ended: TrafficTotals,
    by_kind: BTreeMap<Kind, Moved>,
    live: BTreeMap<ConnId, Live>,
}

/// What the user said of a peer that counts here, and whether it dialled us.
type Kind = (Option<PeerClass>, bool);

#[derive(Debug)]
struct Live {
    connection: Connection,
    class: Option<PeerClass>,
    /// What stands among the sums of earlier kinds.
    counted: Moved,
}

/// Bytes on streams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

impl Moved {
    fn of(connection: &Connection) -> Self {
        let mut moved = Self::default();
        for one in connection.traffic() {
            moved.add(Self { sent: one.sent_bytes, received: one.received_bytes });
        }
        moved
    }

    fn add(&mut self, more: Self) {
        self.sent += more.sent;
        self.received += more.received;
    }

    fn without(self, counted: Self) -> Self {
        Self { sent: self.sent - counted.sent, received: self.received - counted.received }
    }
}

impl Live {
    fn kind(&self) -> Kind {
        (self.class, self.connection.direction() == Direction::Inbound)
    }

    /// What is to be added to the sum of its kind.
    fn uncounted(&self) -> Moved {
        Moved::of(&self.connection).without(self.counted)
    }
}

impl NodeTraffic {
    /// A connection is there.
    pub(crate) fn begin(&self, conn: ConnId, connection: Connection, class: Option<PeerClass>) {
        let live = Live { connection, class, counted: Moved::default() };
        self.lock().live.insert(conn, live);
    }

    /// A connection's peer is of this class from now on.
    pub(crate) fn classify(&self, conn: ConnId, class: Option<PeerClass>) {
        let Counted { live, by_kind, .. } = &mut *self.lock();
        if let Some(live) = live.get_mut(&conn)
            && live.class != class
        {
            let moved = live.uncounted();
            by_kind.entry(live.kind()).or_default().add(moved);
            live.counted.add(moved);
            live.class = class;
        }
    }

    /// A connection is forgotten.
    pub(crate) fn end(&self, conn: ConnId) {
        let Counted { live, by_kind, ended } = &mut *self.lock();
        if let Some(live) = live.remove(&conn) {
            ended.add(&live.connection.traffic());
            by_kind.entry(live.kind()).or_default().add(live.uncounted());
        }
    }

    pub(crate) fn list(&self) -> Vec<ProtocolTraffic> {
        let counted = self.lock();
        let mut totals = counted.ended.clone();
        counted.live.values().for_each(|live| totals.add(&live.connection.traffic()));
        totals.list()
    }

    /// The same bytes by kind of peer and by whether it dialled us: every kind, also where nothing was moved.
    pub(crate) fn by_kind(&self) -> Vec<(Option<PeerClass>, bool, Moved)> {
        let counted = self.lock();
        let mut sums = counted.by_kind.clone();
        for class in [None].into_iter().chain(PeerClass::ALL.iter().copied().map(Some)) {
            for inbound in [false, true] {
                sums.entry((class, inbound)).or_default();
            }
        }
        counted.live.values().for_each(|live| sums.entry(live.kind()).or_default().add(live.uncounted()));
        sums.into_iter().map(|((class, inbound), moved)| (class, inbound, moved)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
