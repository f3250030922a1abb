//! Records: what nodes store for each other, signed by whoever publishes it.
//!
//! ```
//! use peerage_dht::record::{Draft, Network, Place, Record};
//! use peerage_identity::NodeKey;
//!
//! let (key, network) = (NodeKey::from_seed([1; 32]), Network::new("acme")?);
//! let place = Place::Value { publisher: key.peer_id(), salt: "colour".into() };
//! let record = Record::sign(&key, &network, Draft::new(place, 1, 1_800_000_000, "blue".into()))?;
//! let read = Record::open(&network, &record.to_bytes())?;
//! assert_eq!(read.body().unwrap(), "blue");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Rules
//! - Signed bytes are kept as they came (`a_header_with_a_field_of_a_later_version_still_verifies_and_is_passed_on_as_it_came`); what is not signed has one form
//!   (`nobody_adds_to_a_record_what_its_publisher_did_not_say`).
//! - Where a key names a peer, only that peer publishes there: `only_the_owner_of_a_place_publishes_there`.
//! - All nodes agree which of two records is the newer one: [`Version`].
//! - A publisher that signs two bodies under one sequence number is found out: [`Version::equivocates`].
//! - Nobody but the publisher lengthens a record's life: expiry is signed.

mod clock;
mod endpoint;
mod entry_id;
mod fault;
mod kind;
mod mailbox;
mod place;
mod rules;
mod signed;
mod version;

pub use clock::{ClockChanged, NeighbourClocks};
pub use endpoint::{EndpointBody, MAX_ENDPOINT_ADDRESSES, MAX_ENDPOINT_PROTOCOLS, MAX_PROTOCOL_NAME};
pub use entry_id::EntryId;
pub use fault::RecordFault;
pub use kind::{ForeignLimits, Keeping, Kind, KindLimits, RecordsConfig};
pub use mailbox::{
    MAX_CLEARED, MailboxPolicy, MailboxRules, MailboxToken, mailbox_context, meets_work, solve_work,
};
pub use place::{MAX_NETWORK_NAME, MAX_SALT, Named, Network, NetworkNameError, Place, topic_hash};
pub use rules::{Authority, Checked, Everybody, Records, Validator, Welcome};
pub use signed::{Claim, Draft, MAX_OVERHEAD, MAX_TOKEN_BYTES, RECORD, Record, Unverified};
pub use version::{VERSION_BYTES, Version};
