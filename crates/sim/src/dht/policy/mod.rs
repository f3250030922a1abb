//! The rules by which a lookup asks, waits and ends: ours, and those of four libraries that are in use (dht.md A.2).
//!
//! The libraries' rules are written anew from their settings and stop rules; they are not those crates.

mod candidates;
mod go;
mod hyper;
mod ours;
mod rust;
mod torrent;

use super::queue::Micros;

pub use candidates::Candidates;
pub use go::Go;
pub use hyper::Hyper;
pub use ours::Ours;
pub use rust::Rust;
pub use torrent::Torrent;

/// What a lookup is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// The first copy of a value.
    Value,
    /// The 20 peers closest to the key.
    Closest,
}

/// What a policy wants next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Ask this peer.
    Ask(u32),
    /// A request is needless now: it stays counted, its answer comes to nobody.
    Cancel(u32),
    /// Nothing until an answer comes or this time.
    Wait(Option<Micros>),
    /// The lookup has ended.
    Done,
}

/// An answer as a policy sees it.
#[derive(Debug)]
pub struct Reply<'a> {
    /// Who answered.
    pub peer: u32,
    /// The round trip, without a handshake.
    pub rtt: Micros,
    /// The 20 closest peers that it knows, with their distances.
    pub closer: &'a [(u64, u32)],
    /// Whether it holds the value.
    pub value: bool,
}

/// One lookup as one library runs it.
pub trait Policy {
    /// Begins with the closest peers of the own table.
    fn start(&mut self, now: Micros, seeds: &[(u64, u32)]);

    /// An answer came.
    fn answered(&mut self, now: Micros, reply: &Reply<'_>);

    /// What to do now. Called until it waits or is done.
    fn next(&mut self, now: Micros) -> Step;

    /// The closest peers that it ends with, the closest first.
    fn closest(&self) -> Vec<u32>;

    /// True when it decides itself whether an answer's value ends the lookup; the others end with the first one.
    fn judges(&self) -> bool {
        false
    }

    /// The answers in a row that led to the end, for one that counts them itself.
    fn hops(&self) -> Option<u32> {
        None
    }

    /// Whether a value was found, for one that judges.
    fn found(&self) -> bool {
        false
    }
}

/// Which rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Peerage's own machine.
    Ours,
    /// rust-libp2p.
    P1,
    /// go-libp2p.
    P2,
    /// libtorrent.
    P3,
    /// dht-rpc, of hyperdht.
    P4,
}

impl Kind {
    /// All of them, ours first.
    pub const ALL: [Kind; 5] = [Kind::Ours, Kind::P1, Kind::P2, Kind::P3, Kind::P4];

    /// Its short name, as the command line takes it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Ours => "ours",
            Kind::P1 => "p1",
            Kind::P2 => "p2",
            Kind::P3 => "p3",
            Kind::P4 => "p4",
        }
    }

    /// A lookup by its rules; `None` for ours, which is a machine.
    pub fn rules(self, goal: Goal) -> Option<Box<dyn Policy>> {
        match self {
            Kind::Ours => None,
            Kind::P1 => Some(Box::new(Rust::default())),
            Kind::P2 => Some(Box::new(Go::new(goal))),
            Kind::P3 => Some(Box::new(Torrent::default())),
            Kind::P4 => Some(Box::new(Hyper::default())),
        }
    }

    /// Its name in tables.
    pub fn title(self) -> &'static str {
        match self {
            Kind::Ours => "ours",
            Kind::P1 => "P1 rust-libp2p",
            Kind::P2 => "P2 go-libp2p",
            Kind::P3 => "P3 libtorrent",
            Kind::P4 => "P4 dht-rpc",
        }
    }
}

impl std::str::FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| format!("there is no policy {name:?}: give some of ours,p1,p2,p3,p4"))
    }
}
