//! The DHT: Kademlia over libp2p's messages, as a pure state machine.
//!
//! One [`Dht`] is a whole node of the DHT. It keeps a routing table of peers that have proved themselves, looks things up, stores values at the peers
//! closest to their keys, and answers others. It opens no socket and reads no clock: a driver feeds it [`Input`]s with the time and carries out its
//! [`Output`]s (see [`peerage_machine::Machine`]). The node's driver in the crate `peerage` does so over QUIC, the simulator in `peerage-sim` does so
//! for ten thousand of them in one loop; both only carry messages.
//!
//! ```
//! use peerage_dht::{AcceptAll, Dht, DhtConfig, Ended, Input, Mode, Operation, OperationId, Options, Output, Target};
//! use peerage_identity::NodeKey;
//! use peerage_machine::{Machine, Now, Random};
//!
//! let peer = NodeKey::from_seed([1; 32]).peer_id();
//! let mut dht = Dht::new(DhtConfig::default(), peer, Mode::Server, Box::new(AcceptAll), Random::from_number(1), Now::ZERO);
//! let wanted = Operation::Get { target: Target::new(b"/acme/kv/colour").expect("short and not empty") };
//! dht.handle(Now::ZERO, Input::Start { operation: OperationId(1), wanted, options: Options::default() });
//! // Nobody is known, so nothing can be found; and it says so.
//! let ended = std::iter::from_fn(|| dht.poll_output()).find_map(|output| match output {
//!     Output::Done { outcome, .. } => Some(outcome.ended),
//!     _ => None,
//! });
//! assert_eq!(ended, Some(Ended::NoContacts));
//! ```
//!
//! # For a driver
//!
//! - A peer is warm from [`Input::Connected`] to [`Input::Disconnected`]; [`Input::Supports`] says whether it advertises the protocol, and who doesn't is
//!   entered nowhere. Contacts to begin with come as [`Input::Known`]; [`Output::WantContacts`] asks for some.
//! - Each [`Output::Ask`] is answered by [`Input::Answered`] or [`Input::Failed`], unless [`Output::CancelAsk`] takes it back; an answer that comes after
//!   that is welcome still. [`Input::Answered`] carries the round trip without the handshake, and the address at which the peer really was.
//! - Each [`Input::Asked`] is answered by [`Output::Reply`], each [`Input::Start`] by one [`Output::Done`]. A store is done for its caller after half of
//!   its replicas; [`Output::Settled`] has the final count.
//! - [`Dht::keep`] and [`Dht::seen_mut`] are what is worth a place on the disk; [`Dht::standing`] is what an operator may see.
//!
//! # Attacks it stands against
//!
//! - *Lies about peers*: who asks us, or is only named, stands in no table (`only_an_answer_from_an_advertised_address_makes_an_entry`); hearsay
//!   changes no entry, is never passed on, and points into no network that its teller is no part of
//!   (`hearsay_neither_replaces_addresses_nor_points_into_our_network`).
//! - *Many nodes of one owner*: buckets, the table and each lookup take few peers of a subnet
//!   (`so_many_of_a_subnet_stand_in_a_bucket_and_in_the_table_and_loopback_is_exempt`, `one_subnet_cannot_fill_a_lookup`), and old peers are preferred
//!   (`a_full_bucket_keeps_whom_it_has_and_newcomers_wait`).
//! - *A crowd around a key*: it shows in the density of the neighbourhood, which then is covered from several sides
//!   (`a_dense_neighbourhood_raises_the_alarm_and_is_covered`); a store goes to those whom lookups of places near the key find, and to no more than an honest
//!   neighbourhood has (`a_store_in_a_dense_neighbourhood_goes_to_as_many_of_the_region_as_an_honest_one_has`).
//! - *A trap for newcomers*: networks behind the first contacts are compared (`first_contacts_that_lead_into_different_networks_are_told_of`).
//! - *Silence*: a silent peer costs a lookup a part of a round trip (`a_suspect_gives_its_slot_back_and_is_listened_to`); one that failed twice is neither
//!   asked nor named; and when most fail, the fault is sought with us (`an_outage_is_told_and_blames_nobody`).
//! - *Floods*: rates and bytes are limited for each peer and for the node (`one_peer_may_ask_so_much_and_all_together_so_much`), answers stay below 16 KiB,
//!   and whatever a peer sends takes bounded memory (`a_liar_with_endless_names_costs_a_bounded_lookup`).
//!
//! # Modules, in the order in which data passes through them
//!
//! | file | subject |
//! | --- | --- |
//! | `key` | [`Key`], [`Distance`], [`Target`]: where things lie |
//! | `contact` | [`Contact`]: a peer and its addresses; [`Subnet`]: what counts as one neighbour |
//! | `message` | [`Query`], [`Answer`]: what nodes say to each other |
//! | `config` | [`DhtConfig`]: every limit and time |
//! | `rtt` | round trips, and how long to wait for one |
//! | `table` | [`Table`]: the routing table |
//! | `record` | [`record::Record`]: signed records, their order, the rules for each kind |
//! | `topic` | ads under topics, and how large topics are divided |
//! | `estimate` | [`SizeEstimate`]: how large the network is |
//! | `outage` | whether our own network is at fault |
//! | `seen`, `distinct` | [`Seen`]: how many peers there were lately, and since the start |
//! | `store` | [`store::Store`]: what a node keeps for others, and how it survives a restart |
//! | `replication` | [`replication::Repair`] among holders, [`replication::Sets`] of a publisher |
//! | `limits` | what each limit may be |
//! | `lookup` | one lookup as a state machine; [`Judge`]: what values are worth |
//! | `machine` | [`Dht`], its [`Input`]s and [`Output`]s |
#![forbid(unsafe_code)]

mod config;
mod contact;
mod distinct;
mod estimate;
mod key;
pub mod limits;
mod lookup;
mod machine;
mod message;
mod outage;
pub mod record;
pub mod replication;
mod rtt;
mod seen;
pub mod store;
mod table;
pub mod topic;

pub use config::{DhtConfig, LookupConfig, ServeConfig, TableConfig, UpkeepConfig};
pub use contact::{Contact, Family, MAX_CONTACT_ADDRESS_BYTES, MAX_CONTACT_ADDRESSES, Subnet};
pub use estimate::SizeEstimate;
pub use key::{Distance, Key, MAX_TARGET_BYTES, Target};
pub use lookup::{AcceptAll, Cause, Invalid, Judge, Judged, Step, StepKind};
pub use machine::{
    Class, Counts, Dht, ESCAPE_PAUSE, Ended, Errand, Event, Failure, Found, HeldView, Input,
    MAX_VAIN_ESCAPES, Mode, NotStored, Operation, OperationId, Options, Outcome, Output, QueryId, RequestId,
    Source, Standing, Stats,
};
pub use message::{
    Answer, MAX_ANSWER_BYTES, MAX_CLOSER, MAX_CURSOR_BYTES, MAX_PROVIDERS, MAX_REPAIR_BYTES, MAX_SILENT,
    MAX_VALUE_BYTES, MAX_VALUES, Query, Refusal, Status, Wait, digest_of,
};
pub use seen::{Seen, SeenCounts};
pub use table::{Admission, Health, Table};

/// Peers for tests, by number.
#[cfg(test)]
mod numbered {
    use peerage_identity::{DialAddress, NodeKey, PeerId};

    use crate::Contact;

    pub(crate) fn key(number: u64) -> NodeKey {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&number.to_le_bytes());
        NodeKey::from_seed(seed)
    }

    pub(crate) fn peer(number: u64) -> PeerId {
        key(number).peer_id()
    }

    /// An address in a /24 of its own, for numbers below 2^22; the first 2^14 are in a /16 of their own.
    pub(crate) fn address(number: u64) -> DialAddress {
        let [a, b, c] = [20 + (number & 63), number >> 6 & 255, number >> 14];
        format!("/ip4/{a}.{b}.{c}.7/udp/4001/quic-v1").parse().unwrap()
    }

    #[allow(dead_code)]
    pub(crate) fn contact(number: u64) -> Contact {
        Contact::new(peer(number), &[address(number)])
    }
}
