//! Topics: peers advertise under a name, others enumerate them page by page.
//!
//! One key must not carry a large topic, so a topic of many members is divided into shards, each under a key of its own and so at other nodes. Publisher and reader need not agree
//! on their number. Both begin with shard 0, where a part of all publishers is whatever they chose, and take what a quarter of the ads there say: a [`Survey`]. A reader goes on
//! with the shards up to 2^bits. A publisher chooses its `shard_bits` by how many ads there are; its ad goes to the shard that the lowest bits of its own hash name, and says the
//! number. Whoever chose fewer bits than a reader sees stands in one of the shards that the reader visits; whoever chose more stands in one of those as well, until the others
//! have followed. Where a topic has become much smaller, those that have not looked again yet may be overlooked by readers, for no longer than the life of an ad.

use bytes::Bytes;
use peerage_identity::PeerId;
use peerage_wire::dht_record as wire;
use prost::Message;
use sha2::{Digest, Sha256};

use crate::record::RecordFault;

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
    /// The publisher is here no more: it has left the topic, or stands in another shard. It still says how many shards there are.
    pub gone: bool,
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
            gone: self.gone,
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
            gone: ad.gone,
        })
    }

    /// What is left in a shard by somebody who stands there no more.
    pub fn gone(topic: &str, shard_bits: u32) -> Self {
        Self { topic: topic.to_owned(), shard_bits, gone: true, ..Self::default() }
    }

    /// Whether it has all of the tags and, where any are given, one of the protocols.
    pub fn matches(&self, tags: &[&str], protocols: &[&str]) -> bool {
        let has = |list: &[String], word: &str| list.iter().any(|known| known == word);
        tags.iter().all(|tag| has(&self.tags, tag))
            && (protocols.is_empty() || protocols.iter().any(|protocol| has(&self.protocols, protocol)))
    }
}

/// The bits of the shards of a topic of so many members, of which a shard carries `shard_members`.
pub fn shard_bits_for(members: usize, shard_members: usize) -> u32 {
    let shards = members.div_ceil(shard_members.max(1)).clamp(1, 1 << MAX_SHARD_BITS);
    shards.next_power_of_two().trailing_zeros()
}

/// The shard in which a publisher stands that sees 2^`bits` of them.
pub fn shard_of(publisher: &PeerId, bits: u32) -> u16 {
    let hash: [u8; 32] = Sha256::digest(publisher.to_bytes()).into();
    let low = u16::from_be_bytes([hash[30], hash[31]]);
    low & ((1 << bits.min(MAX_SHARD_BITS)) - 1)
}

/// What the ads of shard 0 say of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Survey {
    /// So many members stand there, as far as they were looked at.
    pub members: usize,
    /// The topic has 2^so many shards: the most that a quarter of the ads says, so that a few liars don't send a reader to 256. Those who are gone say it too, so that nobody is
    /// overlooked where all but a few have left.
    pub shard_bits: u32,
}

impl Survey {
    /// So many ads of shard 0 are looked at: with twice as many as a shard carries there are too few shards, however many more there are.
    pub fn most_ads(shard_members: usize) -> usize {
        2 * shard_members.max(1)
    }

    /// What these ads of shard 0 say.
    pub fn of<'a>(ads: impl IntoIterator<Item = &'a Ad>) -> Self {
        let mut members = 0;
        let mut count = |ad: &Ad| {
            members += usize::from(!ad.gone);
            ad.shard_bits
        };
        let mut bits: Vec<u32> = ads.into_iter().map(&mut count).collect();
        bits.sort_unstable();
        Self { members, shard_bits: bits.get(bits.len() * 3 / 4).copied().unwrap_or(0) }
    }

    /// How many shards a reader visits, from 0 on.
    pub fn shards(&self) -> u16 {
        1 << self.shard_bits.min(MAX_SHARD_BITS)
    }

    /// The bits that a publisher chooses: the others', unless shard 0 has more ads than a shard is to have, or a quarter of that.
    pub fn bits_to_choose(&self, shard_members: usize) -> u32 {
        match (shard_members / 4..=shard_members).contains(&self.members) {
            true => self.shard_bits,
            false => shard_bits_for(self.members << self.shard_bits.min(MAX_SHARD_BITS), shard_members),
        }
    }

    /// Where a publisher's ad is to stand.
    pub fn standing(&self, publisher: &PeerId, shard_members: usize) -> Standing {
        let shard_bits = self.bits_to_choose(shard_members);
        let mut shards = vec![shard_of(publisher, shard_bits)];
        // Readers see what the others have chosen until now.
        let seen = shard_of(publisher, self.shard_bits.min(shard_bits));
        if !shards.contains(&seen) {
            shards.push(seen);
        }
        Standing { shard_bits, shards }
    }
}

/// Where a publisher's ad is to stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// What it says.
    pub shard_bits: u32,
    /// The shards: one, or two while readers do not see the first of them yet.
    pub shards: Vec<u16>,
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
            gone: true,
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

    /// AL w11, dht.md B.4: shards for topics over 200 members.
    #[test]
    fn a_topic_is_divided_beyond_two_hundred_members() {
        let bits: Vec<_> = [0, 1, 200, 201, 400, 401, 100_000, usize::MAX]
            .map(|members| shard_bits_for(members, 200))
            .into();
        assert_eq!(bits, [0, 0, 0, 1, 1, 2, 8, 8]);
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

    fn survey(bits: impl IntoIterator<Item = u32>) -> Survey {
        let ads: Vec<Ad> = bits.into_iter().map(ad).collect();
        Survey::of(&ads)
    }

    #[test]
    fn a_few_liars_do_not_send_readers_to_all_shards() {
        assert_eq!(survey((0..9).map(|at| if at < 2 { 8 } else { 1 })).shards(), 2);
        assert_eq!(survey([]).shards(), 1);
    }

    /// Those who have left say how many shards there are, and are not counted.
    #[test]
    fn readers_find_those_that_are_left_when_all_of_the_first_shard_have_gone() {
        let gone: Vec<Ad> = (0..30).map(|_| Ad::gone("chess", 3)).collect();
        let survey = Survey::of(&gone);
        assert_eq!((survey.members, survey.shards(), survey.bits_to_choose(200)), (0, 8, 0));
    }

    #[test]
    fn a_publisher_chooses_what_others_chose_unless_a_shard_is_too_full_or_too_empty() {
        let chosen = |ads: usize, bits| survey((0..ads).map(|_| bits)).bits_to_choose(200);
        assert_eq!(
            [chosen(0, 0), chosen(200, 0), chosen(201, 0), chosen(400, 0), chosen(401, 0)],
            [0, 0, 1, 1, 2]
        );
        assert_eq!(
            [chosen(50, 3), chosen(200, 3), chosen(201, 3), chosen(49, 3), chosen(1, 8)],
            [3, 3, 4, 1, 1]
        );
        assert_eq!(chosen(5_000, 8), 8);
    }

    /// Topics that grow, shrink and stand still, whose members look one after another: who reads sees them all, and no shard has too many in the end.
    #[test]
    fn readers_see_every_member_while_a_topic_grows_and_shrinks() {
        const CARRIES: usize = 20;
        let mut standing: Vec<Standing> = Vec::new();
        let ads = |standing: &[Standing], shard: u16| -> Vec<Ad> {
            let there = standing.iter().filter(|one| one.shards.contains(&shard));
            there.map(|one| ad(one.shard_bits)).take(Survey::most_ads(CARRIES)).collect()
        };
        let seen = |standing: &[Standing]| {
            let shards = Survey::of(&ads(standing, 0)).shards();
            standing.iter().filter(|one| one.shards.iter().any(|shard| *shard < shards)).count()
        };
        for members in [10, 70, 300, 300, 300, 100, 40, 8, 8] {
            let before = standing.len();
            standing.truncate(members);
            for number in 0..members {
                let chosen = Survey::of(&ads(&standing, 0)).standing(&peer(number as u64), CARRIES);
                match standing.get_mut(number) {
                    Some(one) => *one = chosen,
                    None => standing.push(chosen),
                }
                // Of a topic that shrinks those that have not looked again may be overlooked.
                let least = if before > members { standing.len() * 2 / 3 } else { standing.len() };
                assert!(seen(&standing) >= least, "{} at {number} of {members}", seen(&standing));
            }
            assert_eq!(seen(&standing), members);
        }
        assert!(standing.iter().all(|one| one.shard_bits <= 1), "{standing:?}");
        for _ in 0..4 {
            for number in 0..300 {
                let chosen = Survey::of(&ads(&standing, 0)).standing(&peer(number as u64), CARRIES);
                if standing.len() == number { standing.push(chosen) } else { standing[number] = chosen }
            }
        }
        let fullest = (0..256).map(|shard| ads(&standing, shard).len()).max().unwrap();
        assert!(fullest <= CARRIES + 5, "{fullest}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(noise: Vec<u8>) {
            let _ = Ad::decode(&noise.into());
        }
    }
}
