//! Topics: who is in one, joining it and leaving it. How a large topic is divided into shards is [`peerage_dht::topic`]'s; here they are surveyed, visited and moved between.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use peerage_dht::record::{Place, Record};
use peerage_dht::replication::SetView;
use peerage_dht::topic::{Ad, Standing, Survey};
use peerage_dht::{Class, Ended, Operation, Options, Outcome};
use peerage_identity::PeerId;
use tokio::time::Instant;

use super::DhtCore;
use super::handle::{Dht, DhtCall, DhtError, Terms, stored};
use super::report::DhtReport;
use crate::shared::Shared;

/// How long it is looked how large a topic is, before this node's ad is placed; half of the call's deadline, if that is less.
const SURVEY_WITHIN: Duration = Duration::from_secs(5);
/// Shards that one reader visits at once.
const SHARDS_AT_ONCE: usize = 4;

/// A member of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Member {
    /// Who.
    pub peer: PeerId,
    /// What it says about itself.
    pub ad: Ad,
}

/// The ads of a shard by publisher, each with its number.
type Ads = BTreeMap<PeerId, (u64, Ad)>;

impl Dht {
    /// Joins a topic: others who ask for it find this node and what it says about itself. The ad lasts for an hour at a time and is renewed while the node runs
    /// ([`DhtCall::lasts`], [`DhtCall::once`]), until [`Dht::leave`].
    ///
    /// How many members the topic has is looked up first: a large one is divided into shards ([`peerage_dht::topic`]), and the node says so in the ad, whatever its
    /// `shard_bits` were. While the ad is renewed, the node looks again as often, and moves where the topic has grown or shrunk.
    pub fn announce(&self, ad: &Ad) -> DhtCall<DhtReport> {
        let (dht, ad) = (self.clone(), ad.clone());
        let make = move |options: Options, terms: Terms| async move {
            let core = dht.core()?.clone();
            // What cannot be published is said before anybody is asked.
            dht.draft(&core, Place::of_topic(&ad.topic, 0), ad.encode(), &terms)?;
            let (standing, _) = dht.survey(&core, &ad.topic, options).await?;
            let body = Ad { shard_bits: standing.shard_bits, ..ad.clone() }.encode();
            dht.store_in_all(&core, &ad.topic, &standing.shards, body, options, terms).await
        };
        self.make(make, stored)
    }

    /// Takes this node out of a topic: readers are told that it is not there any more, by a word that lasts as long as an ad can.
    pub fn leave(&self, topic: &str) -> DhtCall<DhtReport> {
        let (dht, topic) = (self.clone(), topic.to_owned());
        let make = move |options: Options, terms: Terms| async move {
            let core = dht.core()?.clone();
            let here = dht.in_topics().await?.remove(&topic).unwrap_or_default();
            let (bits, shards) = match here.iter().max_by_key(|stands| stands.seq) {
                Some(newest) => (newest.ad.shard_bits, here.iter().map(|stands| stands.shard).collect()),
                // An earlier run may have joined.
                None => {
                    let (standing, _) = dht.survey(&core, &topic, options).await?;
                    (standing.shard_bits, standing.shards)
                }
            };
            let terms =
                Terms { lasts: terms.lasts.or(Some(core.records.topic.max_ttl)), once: true, ..terms };
            let body = Ad::gone(&topic, bits).encode();
            dht.store_in_all(&core, &topic, &shards, body, options, terms).await
        };
        self.make(make, stored)
    }

    /// Who is in a topic, up to `wanted` of them. The first shard says how many there are; of a large topic the others are visited while more members are wanted.
    pub fn topic(&self, topic: &str, wanted: usize) -> DhtCall<(Vec<Member>, DhtReport)> {
        let core = self.core().cloned();
        let wanted = wanted.max(1);
        let first = core.clone().and_then(|core| collect(&core, topic, 0, wanted));
        let (dht, topic) = (self.clone(), topic.to_owned());
        self.call_then(first, move |outcome, options| async move {
            let core = core?;
            let mut report = DhtReport::of(&outcome);
            let ads = ads(&core, &outcome);
            let shards = Survey::of(ads.values().map(|(_, ad)| ad)).shards();
            let mut members = Ads::new();
            add_members(&mut members, ads);
            let left = options
                .deadline
                .unwrap_or_else(|| core.lookups.deadline(options.class).saturating_sub(report.took));
            let begun = Instant::now();
            let visit = |shard| dht.visit(&core, &topic, shard, wanted, options, begun + left);
            // As many ads were there, and some of them of those who are gone.
            let again = (report.ended == Ended::Found && members.len() < wanted).then_some(0);
            let shards = again.into_iter().chain(1..shards);
            let mut visits = futures_util::stream::iter(shards).map(visit).buffered(SHARDS_AT_ONCE);
            while members.len() < wanted
                && let Some(visited) = visits.next().await
            {
                let (more, its) = visited?;
                report.add(&its);
                add_members(&mut members, more);
            }
            report.took += begun.elapsed();
            let members = members.into_iter().map(|(peer, (_, ad))| Member { peer, ad });
            Ok((members.take(wanted).collect(), report))
        })
    }

    /// The ads of one shard, with as many members among them as are wanted, if they are there.
    async fn visit(
        &self,
        core: &DhtCore,
        topic: &str,
        shard: u16,
        wanted: usize,
        options: Options,
        end: Instant,
    ) -> Result<(Ads, DhtReport), DhtError> {
        let mut most = wanted;
        loop {
            let (ads, report) = self.read(core, topic, shard, most, options, end).await?;
            let members = ads.values().filter(|(_, ad)| !ad.gone).count();
            let limit = core.lookups.max_values;
            if members >= wanted || report.ended != Ended::Found || most >= limit {
                return Ok((ads, report));
            }
            most = most.saturating_mul(4).min(limit);
        }
    }

    /// Up to so many ads of one shard.
    async fn read(
        &self,
        core: &DhtCore,
        topic: &str,
        shard: u16,
        most: usize,
        options: Options,
        end: Instant,
    ) -> Result<(Ads, DhtReport), DhtError> {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok((Ads::new(), DhtReport::of(&Outcome::empty(Ended::Deadline))));
        }
        let of = self.core().cloned();
        let read = move |outcome: &Outcome| Ok((ads(&*of?, outcome), DhtReport::of(outcome)));
        self.call(collect(core, topic, shard, most), read).under(options).deadline(left).await
    }

    /// Where this node's ad is to stand in a topic, by what is in its first shard; and whether all of that was seen.
    async fn survey(
        &self,
        core: &DhtCore,
        topic: &str,
        options: Options,
    ) -> Result<(Standing, bool), DhtError> {
        let carries = core.records.topic_shard_members;
        let within = options.deadline.map_or(SURVEY_WITHIN, |deadline| (deadline / 2).min(SURVEY_WITHIN));
        let end = Instant::now() + within;
        let (ads, report) = self.read(core, topic, 0, Survey::most_ads(carries), options, end).await?;
        let survey = Survey::of(ads.values().map(|(_, ad)| ad));
        let whole = matches!(report.ended, Ended::Complete | Ended::Found);
        Ok((survey.standing(&self.shared.me, carries), whole))
    }

    /// Stores one body in each of these shards. What is left for the caller to do is the first of them.
    async fn store_in_all(
        &self,
        core: &DhtCore,
        topic: &str,
        shards: &[u16],
        body: Bytes,
        options: Options,
        terms: Terms,
    ) -> Result<Operation, DhtError> {
        let (first, others) = shards.split_first().unwrap_or((&0, &[]));
        for shard in others {
            let storing = self.store(Place::of_topic(topic, *shard), Ok(body.clone()));
            if let Err(error) = storing.on(options, &terms).await {
                // Where it is looked after, the node tries on; else the next look at the topic does.
                tracing::debug!(topic, shard, %error, "a second shard of a topic has not taken this node's ad yet");
            }
        }
        let (draft, renew) = self.draft(core, Place::of_topic(topic, *first), body, &terms)?;
        Ok(Operation::Publish { record: Box::new(self.sign(core, draft)?), renew })
    }

    /// The topics in which this node stands, by name, and how.
    async fn in_topics(&self) -> Result<BTreeMap<String, Vec<Stands>>, DhtError> {
        let views = self.of_machine(|_, machine| machine.published()).await?;
        let mut topics: BTreeMap<String, Vec<Stands>> = BTreeMap::new();
        for stands in views.iter().filter_map(stands).filter(|stands| !stands.ad.gone) {
            topics.entry(stands.ad.topic.clone()).or_default().push(stands);
        }
        Ok(topics)
    }

    /// Looks how large the topics are in which this node stands and is renewed, and moves where that has changed.
    async fn review_topics(&self) -> Result<(), DhtError> {
        let core = self.core()?.clone();
        for (topic, here) in self.in_topics().await? {
            if let Some(newest) = here.iter().filter(|stands| stands.renewed).max_by_key(|stands| stands.seq)
                && let Err(error) = self.review(&core, &topic, &here, newest).await
            {
                if matches!(error, DhtError::Closed) {
                    return Err(error);
                }
                tracing::debug!(topic, %error, "where this node stands in a topic is looked at later");
            }
        }
        Ok(())
    }

    async fn review(
        &self,
        core: &DhtCore,
        topic: &str,
        here: &[Stands],
        newest: &Stands,
    ) -> Result<(), DhtError> {
        let options = Options { class: Class::Normal, ..Options::default() };
        let (standing, whole) = self.survey(core, topic, options).await?;
        if !whole {
            return Ok(());
        }
        let ad = Ad { shard_bits: standing.shard_bits, ..newest.ad.clone() };
        for shard in &standing.shards {
            if !here.iter().any(|stands| stands.shard == *shard && stands.ad == ad) {
                let storing = self.store(Place::of_topic(topic, *shard), Ok(ad.encode()));
                storing.under(options).lasts(newest.lasts).await?;
            }
        }
        // Only who is found elsewhere goes.
        let body = Ad::gone(topic, standing.shard_bits).encode();
        for gone in here.iter().filter(|stands| !standing.shards.contains(&stands.shard)) {
            let leaving = self.store(Place::of_topic(topic, gone.shard), Ok(body.clone()));
            leaving.under(options).lasts(core.records.topic.max_ttl).once().await?;
        }
        Ok(())
    }
}

/// An ad of this node's.
pub(super) struct Stands {
    shard: u16,
    pub(super) ad: Ad,
    seq: u64,
    lasts: Duration,
    renewed: bool,
}

pub(super) fn stands(view: &SetView) -> Option<Stands> {
    let Place::Topic { shard, .. } = *view.record.place() else { return None };
    let ad = Ad::decode(view.record.body().filter(|body| !body.is_empty())?).ok()?;
    let seq = view.record.version().seq;
    Some(Stands { shard, ad, seq, lasts: view.lasts, renewed: view.renews.is_some() })
}

fn collect(core: &DhtCore, topic: &str, shard: u16, wanted: usize) -> Result<Operation, DhtError> {
    let target = Place::of_topic(topic, shard).target(&core.network);
    let wanted = target.map(|target| Operation::Collect { target, wanted });
    wanted.ok_or_else(|| DhtError::Record("its name is too long".into()))
}

fn ads(core: &DhtCore, outcome: &Outcome) -> Ads {
    let records = outcome.values.iter().filter_map(|found| Record::open(&core.network, &found.value).ok());
    let ad = |record: Record| {
        let ad = Ad::decode(record.body().filter(|body| !body.is_empty())?).ok()?;
        Some((record.publisher(), (record.version().seq, ad)))
    };
    records.filter_map(ad).collect()
}

/// Adds the members among the ads of a shard. Of one that stands in two the newer ad counts; where somebody is gone, it may stand in another shard.
fn add_members(members: &mut Ads, ads: Ads) {
    for (peer, (seq, ad)) in ads {
        if !ad.gone && members.get(&peer).is_none_or(|(known, _)| *known < seq) {
            members.insert(peer, (seq, ad));
        }
    }
}

/// Looks once in the life of an ad how large the topics of this node are.
pub(crate) async fn keep_topics(shared: Arc<Shared>) {
    let dht = Dht { shared };
    let Ok(core) = dht.core().cloned() else { return };
    loop {
        tokio::time::sleep(core.records.topic.default_ttl).await;
        if dht.review_topics().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use peerage_dht::record::Draft;
    use peerage_identity::NodeKey;

    use super::*;
    use crate::{DhtConfig, Node};

    /// As many members are enough for a shard here.
    const CARRIES: usize = 8;

    /// Nodes that know each other.
    async fn network(count: usize) -> Vec<Node> {
        let mut config = DhtConfig::default();
        config.records.topic_shard_members = CARRIES;
        // Whoever reads and stores without a pause is not told to go slower here.
        let (serve, store) = (&mut config.limits.serve, &mut config.limits.store);
        (serve.peer_burst, serve.peer_byte_burst, serve.node_burst, serve.node_byte_burst) =
            (1e9, 1e9, 1e9, 1e9);
        (store.put_burst, store.checks_per_second) = (1e9, 1e9);
        let builder = || Node::builder().listen("/ip4/127.0.0.1/udp/0/quic-v1").dht(config.clone());
        let mut nodes: Vec<Node> = vec![builder().start().await.unwrap()];
        for _ in 1..count {
            let node = builder().start().await.unwrap();
            node.connect(&nodes[0].listen_addresses()[0]).await.unwrap();
            nodes.push(node);
        }
        for node in &nodes {
            while node.dht().standing().await.unwrap().usable < count - 1 {
                node.dht().closest("anywhere").await.unwrap();
            }
        }
        nodes
    }

    fn ad() -> Ad {
        Ad { topic: "chess".into(), brief: "rapid".into(), ..Ad::default() }
    }

    /// Members that are no nodes: so many ads in a shard, by keys of their own.
    async fn strangers(dht: &Dht, numbers: std::ops::Range<u8>, shard: u16, ad: &Ad) -> Vec<PeerId> {
        let core = dht.core().unwrap().clone();
        let unix = dht.shared.clock.now().unix;
        let mut members = Vec::new();
        for number in numbers {
            let key = NodeKey::from_seed([number; 32]);
            let place = Place::of_topic(&ad.topic, shard);
            let target = place.target(&core.network).unwrap();
            let draft = Draft::new(place, core.next_seq(unix), unix.as_secs() + 3600, ad.encode());
            let value = Record::sign(&key, &core.network, draft).unwrap().to_bytes();
            dht.call(Ok(Operation::Put { target, value, replicas: 20 }), stored).quorum(2).await.unwrap();
            members.push(key.peer_id());
        }
        members
    }

    /// Reads until these are all members, which is at once unless the machine is very busy.
    async fn found(dht: &Dht, members: impl IntoIterator<Item = &PeerId>) {
        let mut expected: Vec<PeerId> = members.into_iter().copied().collect();
        expected.sort();
        let mut last = Vec::new();
        let reading = async {
            while last != expected {
                let (members, _) = dht.topic("chess", 100).await.unwrap();
                last = members.into_iter().map(|member| member.peer).collect();
            }
        };
        let within = tokio::time::timeout(Duration::from_secs(30), reading).await;
        assert!(within.is_ok(), "{last:?} instead of {expected:?}");
    }

    /// Where a node stands in the topic, and what it says of its shards.
    async fn standing(node: &Node) -> (Vec<u16>, u32) {
        let here = node.dht().in_topics().await.unwrap().remove("chess").unwrap_or_default();
        let newest = here.iter().max_by_key(|stands| stands.seq).map_or(0, |stands| stands.ad.shard_bits);
        let mut shards: Vec<u16> = here.iter().map(|stands| stands.shard).collect();
        shards.sort();
        (shards, newest)
    }

    async fn close(nodes: Vec<Node>) {
        for node in nodes {
            node.close().await;
        }
    }

    /// AL-38, AL w11, dht.md B.4: a node joins a topic that is too large for one key in a shard of its own, follows when that changes, and leaves where it stands.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_node_stands_in_the_shard_of_its_own_in_a_large_topic_and_moves_with_its_size() {
        let nodes = network(4).await;
        let (reader, me) = (nodes[0].dht(), nodes[1].peer_id());
        let joined = async |node: &Node| node.dht().announce(&ad()).await.unwrap();
        joined(&nodes[1]).await;
        assert_eq!(standing(&nodes[1]).await, (vec![0], 0));
        found(&reader, [&me]).await;
        // It grows, and nobody else has seen that: who is first to do so stands where it belongs and where the others look.
        let mut members = strangers(&reader, 1..13, 0, &ad()).await;
        members.push(me);
        let mine = |bits| peerage_dht::topic::shard_of(&me, bits);
        nodes[1].dht().review_topics().await.unwrap();
        let mut both = vec![mine(1), 0];
        both.sort();
        both.dedup();
        assert_eq!(standing(&nodes[1]).await, (both, 1));
        found(&reader, &members).await;
        // The others have seen it too and have gone where they belong: one shard each.
        members.truncate(0);
        for shard in 0..8 {
            let said = Ad { shard_bits: 3, ..ad() };
            members
                .extend(strangers(&reader, 20 + 4 * shard as u8..24 + 4 * shard as u8, shard, &said).await);
        }
        strangers(&reader, 1..13, 0, &Ad::gone("chess", 3)).await;
        members.push(me);
        nodes[1].dht().review_topics().await.unwrap();
        assert_eq!(standing(&nodes[1]).await, (vec![mine(3)], 3));
        found(&reader, &members).await;
        joined(&nodes[2]).await;
        let other = nodes[2].peer_id();
        assert_eq!(standing(&nodes[2]).await.0, [peerage_dht::topic::shard_of(&other, 3)]);
        members.push(other);
        found(&reader, &members).await;
        // Who wants few gets no more.
        assert_eq!(reader.topic("chess", 2).await.unwrap().0.len(), 2);
        nodes[2].dht().leave("chess").await.unwrap();
        members.pop();
        found(&reader, &members).await;
        assert!(standing(&nodes[2]).await.0.is_empty());
        close(nodes).await;
    }

    /// However many are gone from a shard, those that are left are found; and who has stood there in an earlier run can leave.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn those_who_are_gone_hide_nobody() {
        let nodes = network(4).await;
        let reader = nodes[0].dht();
        strangers(&reader, 1..30, 0, &Ad::gone("chess", 1)).await;
        let left = strangers(&reader, 30..31, 0, &ad()).await;
        let further = strangers(&reader, 31..32, 1, &ad()).await;
        found(&reader, left.iter().chain(&further)).await;
        for wanted in [1, 2] {
            assert_eq!(reader.topic("chess", wanted).await.unwrap().0.len(), wanted);
        }
        nodes[1].dht().leave("chess").await.unwrap();
        let all = nodes[1].dht().published().await.unwrap();
        let gone: Vec<_> = all.iter().filter(|one| one.what.starts_with("topic")).collect();
        assert!(gone[0].tombstone && !gone[0].renewed && gone[0].what.contains("taken back"), "{gone:?}");
        // What is left to expire is not moved.
        nodes[2].dht().announce(&ad()).once().await.unwrap();
        let before = standing(&nodes[2]).await;
        strangers(&reader, 40..60, 0, &ad()).await;
        nodes[2].dht().review_topics().await.unwrap();
        assert_eq!(standing(&nodes[2]).await, before);
        close(nodes).await;
    }

    /// The time of the whole call is that of its parts together.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_topic_of_many_shards_is_read_within_the_deadline() {
        let nodes = network(3).await;
        let dht = nodes[1].dht();
        // All say that there are 256 shards.
        strangers(&dht, 1..2, 0, &Ad { shard_bits: 8, ..ad() }).await;
        let (members, report) = dht.topic("chess", 9).deadline(Duration::from_millis(30)).await.unwrap();
        assert_eq!((members.len(), report.ended), (1, Ended::Deadline), "{report}");
        let (members, report) = dht.topic("chess", 9).await.unwrap();
        assert_eq!((members.len(), report.ended), (1, Ended::Complete), "{report}");
        assert!(report.counts.asked >= 256, "{report}");
        close(nodes).await;
    }
}
