//! What the node has moved in all, by protocol: the connections that there are, and the sum of those that were.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use peerage_peers::ConnId;
use peerage_transport::{Connection, ProtocolTraffic, TrafficTotals};

/// The node's count. It never goes back: a connection's bytes pass into the sum when it is forgotten.
#[derive(Debug, Default)]
pub(crate) struct NodeTraffic(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    ended: TrafficTotals,
    live: BTreeMap<ConnId, Connection>,
}

impl NodeTraffic {
    /// A connection is there.
    pub(crate) fn begin(&self, conn: ConnId, connection: Connection) {
        self.lock().live.insert(conn, connection);
    }

    /// A connection is forgotten.
    pub(crate) fn end(&self, conn: ConnId) {
        let mut counted = self.lock();
        if let Some(connection) = counted.live.remove(&conn) {
            counted.ended.add(&connection.traffic());
        }
    }

    pub(crate) fn list(&self) -> Vec<ProtocolTraffic> {
        let counted = self.lock();
        let mut totals = counted.ended.clone();
        counted.live.values().for_each(|connection| totals.add(&connection.traffic()));
        totals.list()
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
