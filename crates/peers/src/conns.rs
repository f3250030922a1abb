//! The connections that there are, by number and by peer.

use std::collections::{BTreeMap, BTreeSet};

use peerage_identity::PeerId;

use crate::manager::Conn;
use crate::types::ConnId;
use crate::used::{Place, Used};

#[derive(Debug, Default)]
pub(crate) struct Conns {
    /// Boxed: numbers only grow, and a tree that is filled from one end is half empty.
    by_id: BTreeMap<ConnId, Box<Conn>>,
    /// In the order of their numbers. Mostly one.
    by_peer: BTreeMap<PeerId, Vec<ConnId>>,
    /// Those that are visits.
    visits: BTreeSet<ConnId>,
    used: Used,
}

impl Conns {
    /// What it takes is counted with [`Conns::recount`], as after any change of it.
    pub(crate) fn insert(&mut self, id: ConnId, conn: Conn) {
        let of_peer = self.by_peer.entry(conn.peer).or_default();
        if let Err(place) = of_peer.binary_search(&id) {
            of_peer.reserve_exact(1);
            of_peer.insert(place, id);
        }
        self.by_id.insert(id, Box::new(conn));
    }

    pub(crate) fn remove(&mut self, id: ConnId) -> Option<Conn> {
        let mut conn = self.by_id.remove(&id)?;
        self.used.note(&mut conn, None);
        self.visits.remove(&id);
        if let Some(of_peer) = self.by_peer.get_mut(&conn.peer) {
            of_peer.retain(|other| *other != id);
            if of_peer.is_empty() {
                self.by_peer.remove(&conn.peer);
            }
        }
        Some(*conn)
    }

    /// Counts the places that a peer takes: one of each kind at most, by the latest of its connections for which there is one.
    pub(crate) fn recount(&mut self, peer: &PeerId, exempt: bool) {
        let mut taken = [exempt; Place::ALL.len()];
        for id in self.by_peer.get(peer).into_iter().flatten().rev() {
            let Some(conn) = self.by_id.get_mut(id) else { continue };
            let takes = conn.wants().filter(|place| !std::mem::replace(&mut taken[place.index()], true));
            self.used.note(conn, takes);
            let _ = if conn.visit { self.visits.insert(*id) } else { self.visits.remove(id) };
        }
    }

    /// Those that are visits.
    pub(crate) fn visits(&self) -> impl Iterator<Item = ConnId> + '_ {
        self.visits.iter().copied()
    }

    /// Those of a peer that are visits.
    pub(crate) fn visits_of(&self, peer: &PeerId) -> impl Iterator<Item = ConnId> + '_ {
        self.of(peer).filter(|id| self.visits.contains(id))
    }

    /// The places that are taken.
    pub(crate) fn used(&self) -> &Used {
        &self.used
    }

    pub(crate) fn get(&self, id: &ConnId) -> Option<&Conn> {
        self.by_id.get(id).map(|conn| &**conn)
    }

    pub(crate) fn get_mut(&mut self, id: &ConnId) -> Option<&mut Conn> {
        self.by_id.get_mut(id).map(|conn| &mut **conn)
    }

    /// In the order of their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ConnId, &Conn)> {
        self.by_id.iter().map(|(id, conn)| (id, &**conn))
    }

    /// The same without the numbers.
    pub(crate) fn values(&self) -> impl Iterator<Item = &Conn> {
        self.by_id.values().map(|conn| &**conn)
    }

    /// Those of a peer, in the order of their numbers.
    pub(crate) fn of(&self, peer: &PeerId) -> impl Iterator<Item = ConnId> + '_ {
        self.by_peer.get(peer).into_iter().flatten().copied()
    }

    /// Whoever has one, in the order of their IDs.
    pub(crate) fn peers(&self) -> impl Iterator<Item = &PeerId> {
        self.by_peer.keys()
    }
}
