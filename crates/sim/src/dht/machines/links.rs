//! Connections between machines: what a dial costs, how long a connection lasts, and how many a node has.
//!
//! This is the node's rule for visits (`peers/src/visit_places.rs`). Whoever dials for a question ends the connection when it has asked nothing over it for
//! [`Setting::visit_idle`](super::Setting::visit_idle). A node holds [`Setting::visits`](super::Setting::visits) connections of its own and as many of others: for one more, the one of that kind goes
//! that was used least lately. Either end asks over a connection that stands. Ordinary connections, which the peer manager keeps, are there where the scenario says so
//! ([`World::keep_link`]). Scenario 28 holds all of this against whole nodes.

use std::time::Duration;

use peerage_dht::Input;
use peerage_machine::Machine;

use super::super::network::Health;
use super::super::queue::Micros;
use super::super::still::ip_of;
use super::{Event, World};

/// A connection, as one of its ends has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link {
    kind: Kind,
    /// When this end last asked something over it.
    used: Micros,
    /// When it is looked at next whether it is idle.
    due: Micros,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// This node dialled it for a question.
    Ours,
    /// The other one did.
    Theirs,
    /// It stays as long as both are there.
    Kept,
}

impl World {
    /// An ordinary connection stands between the two from now on.
    pub fn keep_link(&mut self, a: u32, b: u32) {
        self.connect(a, b);
        for (node, peer) in [(a, b), (b, a)] {
            if let Some(link) = self.nodes[node as usize].links.get_mut(&peer) {
                link.kind = Kind::Kept;
            }
        }
    }

    /// How long a question to a peer waits for its connection, and whether it is the one that dials: a dial under way is for all questions.
    pub(super) fn dial(&mut self, node: u32, peer: u32) -> (Micros, bool) {
        let dial = (self.network.round_trip(node, peer) as f64 * self.setting.cold) as Micros;
        let (now, this) = (self.now, &mut self.nodes[node as usize]);
        if let Some(link) = this.links.get_mut(&peer) {
            link.used = now;
            return (0, false);
        }
        if dial == 0 {
            return (0, false);
        }
        if let Some(done) = this.dials.get(&peer).filter(|done| **done > now) {
            return (done - now, false);
        }
        this.dials.retain(|_, done| *done > now);
        this.dials.insert(peer, now + dial);
        let start = this.starts;
        if self.answers(node, peer) {
            self.queue.push(now + dial, Event::Dialled { node, peer, start });
        }
        (dial, true)
    }

    /// Whether a peer is there for a node, however slow: over a connection that stands, or because it can be dialled.
    pub(super) fn answers(&self, node: u32, peer: u32) -> bool {
        let (this, other) = (&self.nodes[node as usize], &self.nodes[peer as usize]);
        let reached = !other.behind_nat || this.links.contains_key(&peer) || self.setting.cold == 0.0;
        reached && other.health != Health::Silent && other.dht.is_some() && other.side == this.side
    }

    /// A dial is over.
    pub(super) fn dialled(&mut self, node: u32, peer: u32, start: u32) {
        let this = &self.nodes[node as usize];
        if this.dht.is_some() && this.starts == start && self.answers(node, peer) {
            self.connect(node, peer);
        }
    }

    /// A connection stands from now on, which `node` has dialled; nothing where there is one.
    pub(super) fn connect(&mut self, node: u32, peer: u32) {
        let due = self.now + self.setting.visit_idle;
        for (one, other, kind) in [(node, peer, Kind::Ours), (peer, node, Kind::Theirs)] {
            let (now, this) = (self.now, &mut self.nodes[one as usize]);
            this.dials.remove(&other);
            if this.links.contains_key(&other) {
                continue;
            }
            this.links.insert(other, Link { kind, used: now, due });
            if kind == Kind::Ours {
                self.queue.push(due, Event::LinkIdle { node: one, peer: other });
            }
            self.tell_connected(one, other);
            self.trim(one, kind);
            self.pump(one);
        }
    }

    fn tell_connected(&mut self, node: u32, peer: u32) {
        let contact = self.nodes[peer as usize].contact.clone();
        let rtt = Some(Duration::from_micros(self.network.round_trip(node, peer)));
        let (remote, now) = (ip_of(peer), self.clock_of(node));
        let id = *contact.peer();
        if let Some(dht) = &mut self.nodes[node as usize].dht {
            dht.handle(now, Input::Connected { contact, remote, rtt });
            dht.handle(now, Input::Supports { peer: id, serves: true });
        }
    }

    /// For one more of a kind than there may be, the one goes that was used least lately.
    fn trim(&mut self, node: u32, kind: Kind) {
        let of_kind = self.nodes[node as usize].links.iter().filter(|(_, link)| link.kind == kind);
        if of_kind.clone().count() > self.setting.visits
            && let Some(idlest) = of_kind.min_by_key(|(_, link)| link.used).map(|(peer, _)| *peer)
        {
            self.end_link(node, idlest);
        }
    }

    /// Whether a connection of ours has been idle for too long.
    pub(super) fn look_at_link(&mut self, node: u32, peer: u32) {
        let (now, idle) = (self.now, self.setting.visit_idle);
        let Some(link) = self.nodes[node as usize].links.get_mut(&peer) else { return };
        if link.kind != Kind::Ours || link.due != now {
            return;
        }
        link.due = link.used + idle;
        match link.due <= now {
            true => self.end_link(node, peer),
            false => self.queue.push(link.due, Event::LinkIdle { node, peer }),
        }
    }

    /// Ends a connection at both ends.
    fn end_link(&mut self, node: u32, peer: u32) {
        self.lose_link(node, peer);
        self.lose_link(peer, node);
    }

    /// A node's end of a connection is gone.
    pub(super) fn lose_link(&mut self, node: u32, peer: u32) {
        let peer_id = *self.nodes[peer as usize].contact.peer();
        let now = self.clock_of(node);
        let this = &mut self.nodes[node as usize];
        if this.links.remove(&peer).is_some()
            && let Some(dht) = &mut this.dht
        {
            dht.handle(now, Input::Disconnected { peer: peer_id });
            self.pump(node);
        }
    }
}
