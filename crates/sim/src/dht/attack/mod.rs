//! Attackers: what they have, and what their nodes do.
//!
//! - [`sybils`]: identities ground for places near a key, to hide what lies there.
//! - [`colluders`]: a share of all nodes that name each other and nobody else.
//!
//! Floods need no machine: scenarios send their queries with [`super::machines::World::send`].

pub mod colluders;
pub mod sybils;

use peerage_dht::{Answer, Contact, Status};

use super::machines::Deed;

/// An answer that names these, as the ones closest to what was asked for.
fn name(closer: Vec<Contact>) -> Deed {
    Deed::Say(Box::new(Answer { closer, extended: true, ..Answer::default() }))
}

/// An answer that says that a copy is stored, which it isn't.
fn pretend() -> Deed {
    Deed::Say(Box::new(Answer { extended: true, ..Answer::status(Status::Stored) }))
}
