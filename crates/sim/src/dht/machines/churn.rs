//! Nodes that come and go.

use peerage_dht::store::{Disk as _, MemoryDisk};
use peerage_dht::{Contact, Source};

use super::super::queue::{Micros, SECOND};
use super::super::stream::{Purpose, Stream};
use super::{Event, World};

/// How long nodes stay (dht.md A.4).
#[derive(Debug, Clone)]
pub struct Sessions {
    /// Shape of the Weibull distribution; 1 is the exponential one.
    pub shape: f64,
    /// Its scale, in hours.
    pub scale_hours: f64,
    /// Nodes that are down, one of which takes the place of each that leaves.
    waiting: Vec<u32>,
    stream: Stream,
}

impl World {
    /// From now on nodes come and go: each session is drawn from a Weibull distribution, those of the nodes that are up began long ago, and for each node that leaves
    /// another one joins within a minute, so that about as many stay up. A node that comes again has its old key and nothing else.
    pub fn churn(&mut self, shape: f64, scale_hours: f64) {
        let stream = self.stream(0, Purpose::Churn);
        let down = (0..self.nodes.len() as u32).filter(|node| self.nodes[*node as usize].dht.is_none());
        let mut sessions = Sessions { shape, scale_hours, waiting: down.collect(), stream };
        for node in 0..self.nodes.len() as u32 {
            if self.nodes[node as usize].dht.is_some() {
                let rest = sessions.rest();
                self.queue.push(self.now + rest, Event::Turn { node });
            }
        }
        self.sessions = Some(sessions);
    }

    /// From now on nodes write to disks of their own.
    pub fn give_disks(&mut self) {
        for node in &mut self.nodes {
            node.disk.get_or_insert_with(MemoryDisk::default);
        }
    }

    /// A node is killed and comes up again at once, with what its disk holds: the records that it has written, and whom it knew best.
    pub fn restart_node(&mut self, node: u32) {
        let this = &mut self.nodes[node as usize];
        let mut rows = this.disk.as_mut().and_then(|disk| disk.load().ok()).unwrap_or_default();
        let now = self.clock_of(node);
        rows.extend(self.nodes[node as usize].dht.iter().flat_map(|dht| dht.memory(now)));
        self.stop_node(node);
        self.machine(node);
        if let Some(dht) = &mut self.nodes[node as usize].dht {
            dht.restore(now, rows);
        }
        self.pump(node);
    }

    /// A node leaves, or comes.
    pub(super) fn turn(&mut self, node: u32) {
        let Some(mut sessions) = self.sessions.take() else { return };
        self.trace.note(self.now, node.into(), 1);
        if self.nodes[node as usize].dht.is_some() {
            self.stop_node(node);
            let place = sessions.stream.below(sessions.waiting.len());
            let next = match sessions.waiting.get_mut(place) {
                Some(waiting) => std::mem::replace(waiting, node),
                None => node,
            };
            let pause = (sessions.stream.unit() * 60.0 * SECOND as f64) as Micros;
            self.queue.push(self.now + pause, Event::Turn { node: next });
        } else {
            let contacts = self.first_contacts(&mut sessions.stream, node);
            self.start_node(node, contacts, Source::Bootstrap);
            let length = sessions.length();
            self.queue.push(self.now + length, Event::Turn { node });
        }
        self.sessions = Some(sessions);
    }

    /// Three nodes that are up, as a newcomer's list to begin with has them.
    pub fn first_contacts(&self, stream: &mut Stream, node: u32) -> Vec<Contact> {
        let well = |other: &u32| {
            let peer = &self.nodes[*other as usize];
            *other != node && peer.is_well() && !peer.behind_nat
        };
        let there: Vec<u32> = (0..self.nodes.len() as u32).filter(well).collect();
        let chosen = stream.sample(there.len(), 3);
        chosen.into_iter().map(|place| self.nodes[there[place] as usize].contact.clone()).collect()
    }
}

impl Sessions {
    /// How long a new session lasts.
    fn length(&mut self) -> Micros {
        let hours = self.scale_hours * (-(1.0 - self.stream.unit()).ln()).powf(1.0 / self.shape);
        (hours * 3_600.0 * SECOND as f64) as Micros
    }

    /// How long a session goes on that is under way: of many sessions end to end, the one that holds a moment far from the start.
    fn rest(&mut self) -> Micros {
        let far = (self.scale_hours * 60.0 * 3_600.0 * SECOND as f64) as Micros;
        let mut ends = 0;
        while ends <= far {
            ends += self.length();
        }
        ends - far
    }
}
