//! Nodes that don't keep to the rules, and networks that are parted.

use peerage_dht::{Answer, Class, Query, RequestId};
use peerage_machine::Now;

use super::super::queue::Micros;
use super::{Event, IDLE, World, clock};

/// Decides what hostile nodes do with the queries that reach them. Their machines are there all the same: they join, ask and answer like others where it says so.
pub trait Adversary {
    /// What becomes of one query.
    fn deed(&mut self, world: &World, heard: &Heard<'_>) -> Deed;
}

/// A query that has reached a node.
#[derive(Debug, Clone, Copy)]
pub struct Heard<'a> {
    /// Whom it has reached.
    pub node: u32,
    /// Who asks.
    pub from: u32,
    /// What.
    pub query: &'a Query,
}

/// What a node does with a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// Its machine answers.
    Fair,
    /// Nobody does.
    Silence,
    /// This is answered.
    Say(Box<Answer>),
}

/// Requests that no machine has made are numbered from here on.
const RAW: u64 = 1 << 40;

impl World {
    /// Sends a query in a node's name that its machine knows nothing of; it does not wait for the answer.
    pub fn send(&mut self, node: u32, to: u32, query: Query) {
        self.last += 1;
        let contact = self.nodes[to as usize].contact.clone();
        self.ask(node, RequestId(RAW + self.last), &contact, query, Class::Interactive);
    }

    /// Parts the network: nodes of different sides don't reach each other any more, and notice after the idle timeout that their connections are gone. With one side
    /// for all it is whole again.
    pub fn part(&mut self, side: impl Fn(u32) -> u8) {
        for node in 0..self.nodes.len() as u32 {
            self.nodes[node as usize].side = side(node);
        }
        for node in 0..self.nodes.len() as u32 {
            let this = &self.nodes[node as usize];
            let across: Vec<u32> =
                this.links.keys().copied().filter(|peer| side(*peer) != this.side).collect();
            for peer in across {
                self.queue.push(self.now + IDLE, Event::LinkLost { node, peer });
            }
        }
    }

    /// The time on a node's clock.
    pub fn clock_of(&self, node: u32) -> Now {
        skewed(self.now, self.nodes[node as usize].clock_ahead)
    }

    /// What a node does with a query.
    pub(super) fn deed(&mut self, node: u32, from: u32, query: &Query) -> Deed {
        let Some(mut adversary) = self.adversary.take() else { return Deed::Fair };
        let deed = adversary.deed(self, &Heard { node, from, query });
        self.adversary = Some(adversary);
        deed
    }
}

fn skewed(at: Micros, ahead: i64) -> Now {
    let now = clock(at);
    let unix = now.unix.as_secs().saturating_add_signed(ahead);
    Now { unix: std::time::Duration::new(unix, now.unix.subsec_nanos()), ..now }
}
