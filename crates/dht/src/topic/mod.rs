//! Topics: peers advertise under a name, others enumerate them page by page.
//!
//! One key must not carry a large topic, so a topic of many members is divided into shards, each under a key of its own and so at other nodes. The shards are a binary tree: a
//! publisher goes from the first one downwards, at each fork as a bit of its own hash says, and stands in the first that has room ([`Shards::has_room`]). A reader begins at the
//! first one too, and goes on below each shard that is at least half full ([`Shards::goes_on_below`]); so what it costs to read a topic grows with what is there, and with
//! nothing that anybody says. Nobody moves while a topic grows. Where it shrinks, whoever stands below a shard with room again moves up before readers stop there
//! ([`Shards::has_emptied`]): what those who leave put in their ads' place counts for readers, and lasts longer than it takes until the others have looked. Those who vanish without
//! a word leave nothing, so that readers can miss members for up to half of an ad's life.

use bytes::Bytes;
use peerage_identity::PeerId;
use peerage_wire::dht_record as wire;
use prost::Message;
use sha2::{Digest, Sha256};

use crate::record::RecordFault;

/// So many forks lie between the first shard of a topic and the last ones: 511 shards, which carry 100,000 members.
pub const MAX_SHARD_DEPTH: u32 = 8;
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
            && ad.protocols.len() <= MAX_AD_TAGS
            && ad.tags.len() <= MAX_AD_TAGS
            && ad.brief.chars().count() <= MAX_BRIEF_CHARS;
        if !plain || !bounded {
            return Err(RecordFault::Body);
        }
        Ok(Self {
            topic: ad.topic,
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

/// When a shard is full, and when it is not any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shards {
    /// Members of a shard beyond which newcomers go further: [`crate::record::RecordsConfig::topic_shard_members`].
    pub carries: usize,
}

impl Shards {
    /// Whether a newcomer stands here, where so many others do.
    pub fn has_room(self, members: usize) -> bool {
        members < self.carries
    }

    /// Whether there may be members below a shard with so many records, those included that say that somebody has left.
    pub fn goes_on_below(self, records: usize) -> bool {
        records >= self.carries.div_ceil(2)
    }

    /// With so many members nobody comes back to a shard from below it.
    pub fn kept(self) -> usize {
        (3 * self.carries).div_ceil(4)
    }

    /// Whether those below a shard with so many members come back to it.
    pub fn has_emptied(self, members: usize) -> bool {
        members < self.kept()
    }
}

/// The shard in which a publisher may stand at this depth. All that it may stand in are below one another.
pub fn shard_at(publisher: &PeerId, depth: u32) -> u16 {
    let hash: [u8; 32] = Sha256::digest(publisher.to_bytes()).into();
    let level = 1 << depth.min(MAX_SHARD_DEPTH);
    level - 1 + (u16::from_be_bytes([hash[30], hash[31]]) & (level - 1))
}

/// How many forks lie above a shard.
pub fn depth_of(shard: u16) -> u32 {
    (u32::from(shard) + 1).ilog2()
}

/// The shard above this one; `None` for the first, and for numbers that are none.
pub fn shard_above(shard: u16) -> Option<u16> {
    let depth = depth_of(shard);
    let level = 1u16.checked_shl(depth.checked_sub(1)?).filter(|_| depth <= MAX_SHARD_DEPTH)?;
    Some(level - 1 + ((shard + 1) & (level - 1)))
}

/// The two shards below this one; none for the last ones.
pub fn shards_below(shard: u16) -> Vec<u16> {
    let depth = depth_of(shard);
    if depth >= MAX_SHARD_DEPTH {
        return Vec::new();
    }
    let level = 1 << depth;
    let within = shard + 1 - level;
    vec![2 * level - 1 + within, 3 * level - 1 + within]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numbered::peer;
    use proptest::prelude::*;

    fn ad() -> Ad {
        Ad { topic: "chess".into(), ..Ad::default() }
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
            ..ad()
        };
        assert_eq!(Ad::decode(&full.encode()), Ok(full.clone()));
        let broken = [
            Ad { topic: String::new(), ..full.clone() },
            Ad { topic: "x".repeat(MAX_TOPIC_NAME + 1), ..full.clone() },
            Ad { brief: "x".repeat(MAX_BRIEF_CHARS + 1), ..full.clone() },
            Ad { tags: vec!["x".into(); MAX_AD_TAGS + 1], ..full.clone() },
            Ad { name: "\u{7}".into(), ..full },
        ];
        for ad in broken {
            assert_eq!(Ad::decode(&ad.encode()), Err(RecordFault::Body), "{ad:?}");
        }
    }

    #[test]
    fn a_search_asks_for_all_tags_and_any_protocol() {
        let ad = Ad { tags: vec!["a".into(), "b".into()], protocols: vec!["/p/1".into()], ..ad() };
        assert!(ad.matches(&[], &[]) && ad.matches(&["b", "a"], &["/q/1", "/p/1"]));
        assert!(!ad.matches(&["a", "c"], &[]) && !ad.matches(&[], &["/q/1"]));
    }

    #[test]
    fn the_shards_of_a_publisher_are_a_path_from_the_first_to_a_last_one() {
        let mut last = std::collections::BTreeSet::new();
        for number in 0..2_000 {
            let path: Vec<u16> = (0..=MAX_SHARD_DEPTH).map(|depth| shard_at(&peer(number), depth)).collect();
            assert_eq!(path[0], 0);
            for (depth, step) in path.windows(2).enumerate() {
                assert!(shards_below(step[0]).contains(&step[1]), "{path:?}");
                assert_eq!((shard_above(step[1]), depth_of(step[0])), (Some(step[0]), depth as u32));
            }
            last.insert(path[8]);
        }
        assert!(last.len() > 240 && last.iter().all(|shard| (255..511).contains(shard)));
        assert_eq!((shard_above(0), shard_above(511), shard_above(u16::MAX)), (None, None, None));
        assert!(shards_below(255).is_empty() && shards_below(u16::MAX).is_empty());
        assert_eq!(shard_at(&peer(1), 99), shard_at(&peer(1), MAX_SHARD_DEPTH));
    }

    /// A topic as its members and readers see it: who stands where, and what those who left have left behind.
    #[derive(Default)]
    struct Topic {
        stand: std::collections::BTreeMap<u64, u16>,
        left: Vec<u16>,
    }

    const FEW: Shards = Shards { carries: 20 };

    impl Topic {
        fn members(&self, shard: u16, but: u64) -> usize {
            self.stand.iter().filter(|(who, at)| **who != but && **at == shard).count()
        }

        fn walk(&self, who: u64) -> u16 {
            let path = (0..=MAX_SHARD_DEPTH).map(|depth| shard_at(&peer(who), depth));
            let deepest = shard_at(&peer(who), MAX_SHARD_DEPTH);
            path.into_iter().find(|shard| FEW.has_room(self.members(*shard, who))).unwrap_or(deepest)
        }

        fn join(&mut self, who: u64) {
            self.stand.insert(who, self.walk(who));
        }

        fn leave(&mut self, who: u64) {
            self.left.extend(self.stand.remove(&who));
        }

        fn review(&mut self, who: u64) {
            let above = shard_above(self.stand[&who]);
            if above.is_some_and(|above| FEW.has_emptied(self.members(above, who))) {
                let there = self.walk(who);
                self.left.extend(self.stand.insert(who, there));
            }
        }

        /// How many members a reader finds, and in how many shards it looks.
        fn read(&self) -> (usize, usize) {
            let (mut shards, mut at, mut found) = (vec![0], 0, 0);
            while let Some(shard) = shards.get(at).copied() {
                let members = self.members(shard, u64::MAX);
                let left = self.left.iter().filter(|left| **left == shard).count();
                found += members;
                if FEW.goes_on_below(members + left) {
                    shards.extend(shards_below(shard));
                }
                at += 1;
            }
            (found, shards.len())
        }
    }

    /// AL w11, dht.md B.4: readers find every member whatever a topic does, and look in hardly more shards than it needs.
    #[test]
    fn readers_find_every_member_while_a_topic_grows_and_shrinks() {
        let mut topic = Topic::default();
        for who in 0..600 {
            topic.join(who);
            assert_eq!(topic.read().0, topic.stand.len());
        }
        assert!((0..511).all(|shard| topic.members(shard, u64::MAX) <= FEW.carries));
        assert!(topic.read().1 <= 130, "{} shards", topic.read().1);
        // Most leave at once; those that are left look one after another; then what was left behind is forgotten.
        for who in 0..590 {
            topic.leave(who);
            assert_eq!(topic.read().0, topic.stand.len());
        }
        for _ in 0..2 {
            for who in 590..600 {
                topic.review(who);
                assert_eq!(topic.read().0, 10);
            }
        }
        topic.left.clear();
        assert_eq!(topic.read(), (10, 3));
        // A topic that stands still moves nobody, however often its members look.
        (600..700).for_each(|who| topic.join(who));
        let before = topic.stand.clone();
        (590..700).for_each(|who| topic.review(who));
        assert_eq!(topic.stand, before);
    }

    /// what a strange record costs readers is no more than two lookups for each half of a shard.
    #[test]
    fn readers_go_on_below_no_shard_that_is_not_half_full() {
        let shards = Shards { carries: 200 };
        assert!(!shards.goes_on_below(99) && shards.goes_on_below(100));
        assert!(shards.has_room(199) && !shards.has_room(200));
        assert!(shards.has_emptied(149) && !shards.has_emptied(150));
        let one = Shards { carries: 1 };
        assert!(one.has_room(0) && one.goes_on_below(1) && !one.goes_on_below(0) && one.has_emptied(0));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(noise: Vec<u8>) {
            let _ = Ad::decode(&noise.into());
        }
    }
}
