//! A node that keeps records, for stories about them.

use bytes::Bytes;

use super::*;
use crate::record::{Draft, Network, Place, Record, Records, RecordsConfig};

pub(super) fn network() -> Network {
    Network::new("acme").unwrap()
}

/// The publisher's record of this number, at a place for which node 0 is one of the closest.
pub(super) fn record(salt: u32, seq: u64) -> Record {
    let publisher = crate::numbered::key(900);
    let salt = Bytes::copy_from_slice(&salt.to_be_bytes());
    let place = Place::Value { publisher: publisher.peer_id(), salt };
    Record::sign(&publisher, &network(), Draft::new(place, seq, 3600, Bytes::from(vec![seq as u8; 8])))
        .unwrap()
}

/// A node that holds records, among forty peers, and the salt of a place that is its own to keep.
pub(super) fn holder() -> (Story, u32) {
    holder_with(|_| {})
}

/// The same, with other limits.
pub(super) fn holder_with(change: impl FnOnce(&mut DhtConfig)) -> (Story, u32) {
    let mut config = DhtConfig::default();
    change(&mut config);
    let mut story = Story::new(config);
    let dht = std::mem::replace(&mut story.dht, Story::new(DhtConfig::default()).dht);
    story.dht = dht.with_records(crate::numbered::key(0), Records::new(network(), RecordsConfig::default()));
    story.dht.plant(story.now, (1..=40).map(contact));
    let own = *story.dht.key();
    let closer = |salt: &u32| {
        let key = *record(*salt, 1).target().key();
        (1..=40).filter(|number| key.distance(contact(*number).key()) < key.distance(&own)).count()
    };
    let salt = (0..1000).find(|salt| closer(salt) < 3).unwrap();
    (story, salt)
}
