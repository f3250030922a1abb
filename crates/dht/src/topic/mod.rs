//! Topics: peers advertise under a name, others enumerate them page by page.
//!
//! One key must not carry a large topic, so a topic of many members is divided into shards, each under a key of its own and so at other nodes. Publisher
//! and reader need not agree on their number. A publisher estimates the topic's size from the first shard and chooses `shard_bits`; its ad goes to the shard that the lowest
//! `shard_bits` bits of its own hash name, and says the number. A reader begins with shard 0, where a part of all publishers is whatever they chose, takes the
//! median of what the ads there say, and goes on with the shards up to 2^bits. Whoever chose fewer bits stands in one of those.

use bytes::Bytes;
use peerage_identity::PeerId;
use peerage_wire::dht_record as wire;
use prost::Message;
use sha2::{Digest, Sha256};

use crate::record::RecordFault;

/// Members beyond which a shard is divided.
pub const SHARD_MEMBERS: usize = 200;
/// A topic has at most 2^so many shards.
pub const MAX_SHARD_BITS: u32 = 8;
/// The most bytes of a topic's name.
pub const MAX_TOPIC_NAME: usize = 128;
/// The most tags of an ad, and the most protocols.
pub const MAX_AD_TAGS: usize = 8;
/// The most characters of an ad's text for people.
pub const MAX_BRIEF_CHARS: usize = 140;

/// What a peer says under a topic. All of it takes at most 256 bytes ([`crate::record::RecordsConfig::topic`]).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ad {
    /// The topic.
    pub topic: String,
    /// The publisher sees 2^so many shards.
    pub shard_bits: u32,
    /// What the publisher calls itself.
    pub name: String,
    /// Protocols that it serves.
    pub protocols: Vec<String>,
    /// Words to choose by.
    pub tags: Vec<String>,
    /// A text for people.
    pub brief: String,
    /// Anything else.
    pub data: Bytes,
}

impl Ad {
    /// As the body of a record.
    pub fn encode(&self) -> Bytes {
        let ad = wire::Ad {
            topic: self.topic.clone(),
            shard_bits: self.shard_bits,
            name: self.name.clone(),
            protocols: self.protocols.clone(),
            tags: self.tags.clone(),
            brief: self.brief.clone(),
            data: self.data.clone(),
        };
        ad.encode_to_vec().into()
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`RecordFault::Body`] when it is none, beyond its bounds, or has control characters in it.
    pub fn decode(body: &Bytes) -> Result<Self, RecordFault> {
        let ad = wire::Ad::decode(body.clone()).map_err(|_| RecordFault::Body)?;
        let texts = [&ad.topic, &ad.name, &ad.brief].into_iter().chain(&ad.protocols).chain(&ad.tags);
        let plain = texts.into_iter().all(|text| !text.contains(char::is_control));
        let bounded = (1..=MAX_TOPIC_NAME).contains(&ad.topic.len())
            && ad.shard_bits <= MAX_SHARD_BITS
            && ad.protocols.len() <= MAX_AD_TAGS
            && ad.tags.len() <= MAX_AD_TAGS
            && ad.brief.chars().count() <= MAX_BRIEF_CHARS;
        if !plain || !bounded {
            return Err(RecordFault::Body);
        }
        Ok(Self {
            topic: ad.topic,
            shard_bits: ad.shard_bits,
            name: ad.name,
            protocols: ad.protocols,
            tags: ad.tags,
            brief: ad.brief,
            data: ad.data,
        })
    }

    /// Whether it has all of the tags and, where any are given, one of the protocols.
    pub fn matches(&self, tags: &[&str], protocols: &[&str]) -> bool {
        let has = |list: &[String], word: &str| list.iter().any(|known| known == word);
        tags.iter().all(|tag| has(&self.tags, tag))
            && (protocols.is_empty() || protocols.iter().any(|protocol| has(&self.protocols, protocol)))
    }
}

/// The bits of the shards of a topic of so many members.
pub fn shard_bits_for(members: usize) -> u32 {
    let shards = members.div_ceil(SHARD_MEMBERS).max(1);
    shards.next_power_of_two().trailing_zeros().min(MAX_SHARD_BITS)
}

/// The shard in which a publisher stands that sees 2^`bits` of them.
pub fn shard_of(publisher: &PeerId, bits: u32) -> u16 {
    let hash: [u8; 32] = Sha256::digest(publisher.to_bytes()).into();
    let low = u16::from_be_bytes([hash[30], hash[31]]);
    low & ((1 << bits.min(MAX_SHARD_BITS)) - 1)
}

/// What the ads of shard 0 say of a topic: the median of their bits, so that a few liars don't send a reader to 256 shards; and the size that follows.
pub fn survey(ads_of_shard_0: &[Ad]) -> Survey {
    let mut bits: Vec<u32> = ads_of_shard_0.iter().map(|ad| ad.shard_bits).collect();
    bits.sort_unstable();
    let shard_bits = bits.get(bits.len() / 2).copied().unwrap_or(0);
    Survey { shard_bits, members: ads_of_shard_0.len() << shard_bits }
}

/// What is known of a topic's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Survey {
    /// It has 2^so many shards.
    pub shard_bits: u32,
    /// About so many members.
    pub members: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numbered::peer;
    use proptest::prelude::*;

    fn ad(shard_bits: u32) -> Ad {
        Ad { topic: "chess".into(), shard_bits, ..Ad::default() }
    }

    // AL-38: topic, name, protocols, tags, a brief of at most 140 characters; an empty topic is none.
    #[test]
    fn an_ad_comes_back_and_has_bounds() {
        let full = Ad {
            name: "alice".into(),
            protocols: vec!["/chess/1".into()],
            tags: vec!["blitz".into(), "de".into()],
            brief: "ä".repeat(MAX_BRIEF_CHARS),
            data: Bytes::from_static(b"x"),
            ..ad(3)
        };
        assert_eq!(Ad::decode(&full.encode()), Ok(full.clone()));
        let broken = [
            Ad { topic: String::new(), ..full.clone() },
            Ad { topic: "x".repeat(MAX_TOPIC_NAME + 1), ..full.clone() },
            Ad { brief: "x".repeat(MAX_BRIEF_CHARS + 1), ..full.clone() },
            Ad { tags: vec!["x".into(); MAX_AD_TAGS + 1], ..full.clone() },
            Ad { name: "\u{7}".into(), ..full.clone() },
            Ad { shard_bits: MAX_SHARD_BITS + 1, ..full },
        ];
        for ad in broken {
            assert_eq!(Ad::decode(&ad.encode()), Err(RecordFault::Body), "{ad:?}");
        }
    }

    #[test]
    fn a_search_asks_for_all_tags_and_any_protocol() {
        let ad = Ad { tags: vec!["a".into(), "b".into()], protocols: vec!["/p/1".into()], ..ad(0) };
        assert!(ad.matches(&[], &[]) && ad.matches(&["b", "a"], &["/q/1", "/p/1"]));
        assert!(!ad.matches(&["a", "c"], &[]) && !ad.matches(&[], &["/q/1"]));
    }

    #[test]
    fn a_topic_is_divided_beyond_two_hundred_members() {
        let bits: Vec<_> = [0, 1, 200, 201, 400, 401, 100_000].map(shard_bits_for).into();
        assert_eq!(bits, [0, 0, 0, 1, 1, 2, 8]);
    }

    #[test]
    fn a_publisher_that_chose_fewer_bits_stands_in_a_shard_that_readers_of_more_visit() {
        for number in 0..200 {
            for bits in 1..=MAX_SHARD_BITS {
                assert_eq!(
                    shard_of(&peer(number), bits) & ((1 << (bits - 1)) - 1),
                    shard_of(&peer(number), bits - 1)
                );
                assert!(shard_of(&peer(number), bits) < 1 << bits);
            }
        }
        let in_shard_0 = (0..400).filter(|number| shard_of(&peer(*number), 2) == 0).count();
        assert!((60..140).contains(&in_shard_0), "{in_shard_0}");
    }

    #[test]
    fn a_few_liars_do_not_send_readers_to_all_shards() {
        let ads: Vec<_> = (0..9).map(|at| ad(if at < 4 { 8 } else { 1 })).collect();
        assert_eq!(survey(&ads), Survey { shard_bits: 1, members: 18 });
        assert_eq!(survey(&[]), Survey { shard_bits: 0, members: 0 });
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(noise: Vec<u8>) {
            let _ = Ad::decode(&noise.into());
        }
    }
}
