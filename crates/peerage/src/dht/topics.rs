//! Topics: who is in one, joining it and leaving it. How a large topic is divided into shards is [`peerage_dht::topic`]'s; here they are read, walked down and moved between.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use peerage_dht::record::{Place, Record};
use peerage_dht::replication::{SetState, SetView};
use peerage_dht::topic::{Ad, MAX_SHARD_DEPTH, Shards, depth_of, shard_above, shard_at, shards_below};
use peerage_dht::{Class, Ended, Key, Operation, Options, Outcome};
use peerage_identity::PeerId;
use tokio::time::Instant;

use super::DhtCore;
use super::handle::{Dht, DhtCall, DhtError, Terms, stored};
use super::report::DhtReport;
use crate::shared::Shared;

/// How long it is looked where a topic has room, before this node's ad is stored; half of the call's deadline, if that is less.
const WALK_WITHIN: Duration = Duration::from_secs(5);
/// Shards that one reader visits at once.
const SHARDS_AT_ONCE: usize = 4;
/// So often after it has come, a member looks whether far too many have come with it.
const YOUNG: u32 = 2;

/// A member of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Member {
    /// Who.
    pub peer: PeerId,
    /// What it says about itself.
    pub ad: Ad,
}

/// An ad that was found.
struct Shown {
    seq: u64,
    ad: Ad,
    /// Holders of two networks have it.
    borne_out: bool,
}

/// What stands in a shard.
#[derive(Default)]
struct Seen {
    ads: BTreeMap<PeerId, Shown>,
    /// Those, of what is borne out, who say that they have left.
    left: usize,
}

impl Seen {
    /// Members that are borne out.
    fn members(&self) -> impl Iterator<Item = &PeerId> {
        self.ads.iter().filter(|(_, shown)| shown.borne_out).map(|(peer, _)| peer)
    }

    fn count(&self) -> usize {
        self.members().count()
    }
}

impl Dht {
    /// Joins a topic: others who ask for it find this node and what it says about itself. The ad lasts for an hour at a time and is renewed while the node runs
    /// ([`DhtCall::lasts`], [`DhtCall::once`]), until [`Dht::leave`].
    ///
    /// Where the topic has room is looked up first, for five seconds at most: a large one is divided into shards ([`peerage_dht::topic`]). A node that stands in the topic already
    /// changes what it says where it stands.
    pub fn announce(&self, ad: &Ad) -> DhtCall<DhtReport> {
        let (dht, ad) = (self.clone(), ad.clone());
        let make = move |options: Options, terms: Terms| async move {
            let core = dht.core()?.clone();
            // What cannot be published is said before anybody is asked.
            dht.draft(&core, Place::of_topic(&ad.topic, 0), ad.encode(), &terms)?;
            let here = dht.in_topics().await?.remove(&ad.topic).unwrap_or_default();
            let shard = match newest(&here).filter(|stands| stands.renewed) {
                Some(stands) => stands.shard,
                None => {
                    let within =
                        options.deadline.map_or(WALK_WITHIN, |deadline| (deadline / 2).min(WALK_WITHIN));
                    let end = Instant::now() + within;
                    let look = Look { dht: &dht, core: &core, topic: &ad.topic, options, end };
                    // Where nothing can be learned it stands in the first one, where readers look in any case.
                    look.walk(None).await?.unwrap_or_default()
                }
            };
            dht.publication(&core, Place::of_topic(&ad.topic, shard), ad.encode(), &terms)
        };
        self.make(make, stored)
    }

    /// Takes this node out of a topic: readers are told that it is not there any more, by a word that lasts as long as an ad can. An ad of an earlier run of the node that stands
    /// in another shard than the topic's first expires by itself, within two hours at most.
    pub fn leave(&self, topic: &str) -> DhtCall<DhtReport> {
        let (dht, topic) = (self.clone(), topic.to_owned());
        let make = move |options: Options, terms: Terms| async move {
            let core = dht.core()?.clone();
            let mut here = dht.in_topics().await?.remove(&topic).unwrap_or_default();
            let last = here.pop().map_or(0, |stands| stands.shard);
            // Two while it moves.
            for stands in here {
                let leaving = dht.store(Place::of_topic(&topic, stands.shard), Ok(Bytes::new()));
                match leaving.on(options, &terms).await {
                    Err(DhtError::TooFewStored { report }) if report.looked_after => {}
                    left => drop(left?),
                }
            }
            dht.publication(&core, Place::of_topic(&topic, last), Bytes::new(), &terms)
        };
        self.make(make, stored)
    }

    /// Who is in a topic, up to `wanted` of them, and up to `dht.lookup.max_values` in all. Of a large topic the further shards are visited while more members are wanted;
    /// [`DhtCall::watch`] shows the first look at the first one.
    pub fn topic(&self, topic: &str, wanted: usize) -> DhtCall<(Vec<Member>, DhtReport)> {
        let core = self.core().cloned();
        let most = core.as_ref().map_or(1, |core| core.lookups.max_values);
        let wanted = wanted.clamp(1, most);
        let first = core.clone().and_then(|core| collect(&core, topic, 0, wanted));
        let (dht, topic) = (self.clone(), topic.to_owned());
        self.call_then(first, move |outcome, options| async move {
            let core = core?;
            let mut report = DhtReport::of(&outcome);
            let first = seen(&core, &outcome);
            let left = options
                .deadline
                .unwrap_or_else(|| core.lookups.deadline(options.class).saturating_sub(report.took))
                .min(Options::MOST_DEADLINE);
            let begun = Instant::now();
            let look = Look { dht: &dht, core: &core, topic: &topic, options, end: begun + left };
            let members = look.gather(wanted, first, &mut report).await?;
            report.took += begun.elapsed();
            Ok((members, report))
        })
    }

    fn publication(
        &self,
        core: &DhtCore,
        place: Place,
        body: Bytes,
        terms: &Terms,
    ) -> Result<Operation, DhtError> {
        let (draft, renew) = self.draft(core, place, body, terms)?;
        Ok(Operation::Publish { record: Box::new(self.sign(core, draft)?), renew })
    }

    /// The topics in which this node stands, by name, and where.
    async fn in_topics(&self) -> Result<BTreeMap<String, Vec<Stands>>, DhtError> {
        let views = self.of_machine(|_, machine| machine.published()).await?;
        let mut topics: BTreeMap<String, Vec<Stands>> = BTreeMap::new();
        for stands in views.iter().filter_map(stands) {
            topics.entry(stands.ad.topic.clone()).or_default().push(stands);
        }
        Ok(topics)
    }

    /// Looks whether this node's ads stand where they should, and moves those that don't. `looked` is how often that was done for each.
    async fn review_topics(&self, looked: &mut BTreeMap<String, u32>) -> Result<(), DhtError> {
        let core = self.core()?.clone();
        let topics = self.in_topics().await?;
        looked.retain(|topic, _| topics.contains_key(topic));
        for (topic, here) in topics {
            let Some(stands) = newest(&here).filter(|stands| stands.renewed) else { continue };
            let looks = looked.entry(topic.clone()).or_default();
            *looks = looks.saturating_add(1);
            let young = *looks <= YOUNG;
            let reviewed = async {
                // A move that came to nothing half way, or two calls at once.
                for stale in here.iter().filter(|other| other.shard != stands.shard) {
                    let leaving = self.store(Place::of_topic(&topic, stale.shard), Ok(Bytes::new()));
                    leaving.class(Class::Normal).await?;
                }
                self.review(&core, &topic, stands, young).await
            };
            if let Err(error) = reviewed.await {
                if matches!(error, DhtError::Closed) {
                    return Err(error);
                }
                tracing::debug!(topic, %error, "where this node stands in a topic is looked at later");
            }
        }
        Ok(())
    }

    /// Whoever stands below a shard that has room again moves up. Who is not taken where it stands, or has just come, perhaps with many others, looks whether there are far too many.
    async fn review(
        &self,
        core: &DhtCore,
        topic: &str,
        stands: &Stands,
        young: bool,
    ) -> Result<(), DhtError> {
        let options = Options { class: Class::Normal, ..Options::default() };
        let end = Instant::now() + 2 * core.lookups.deadline(options.class);
        let look = Look { dht: self, core, topic, options, end };
        let emptied = match shard_above(stands.shard) {
            Some(above) => look.has_emptied(above).await?,
            None => false,
        };
        if emptied || young || stands.state != SetState::Healthy {
            let shard = look.walk(Some(stands.shard)).await?;
            if let Some(shard) = shard.filter(|shard| *shard != stands.shard) {
                self.move_to(topic, stands, shard, options).await?;
            }
        }
        Ok(())
    }

    /// Stands there instead. What the application does meanwhile counts more.
    async fn move_to(
        &self,
        topic: &str,
        from: &Stands,
        shard: u16,
        options: Options,
    ) -> Result<(), DhtError> {
        let there = Place::of_topic(topic, shard);
        let moved = self.store(there.clone(), Ok(from.ad.encode())).under(options).lasts(from.lasts).await;
        let here = self.in_topics().await?.remove(topic).unwrap_or_default();
        let unchanged = here.iter().any(|stands| stands.shard == from.shard && stands.seq == from.seq);
        let gone = if unchanged && moved.is_ok() { Place::of_topic(topic, from.shard) } else { there };
        self.store(gone, Ok(Bytes::new())).under(options).await?;
        moved.map(drop)
    }
}

/// A look at a topic, until its time is over.
struct Look<'a> {
    dht: &'a Dht,
    core: &'a DhtCore,
    topic: &'a str,
    options: Options,
    end: Instant,
}

impl Look<'_> {
    fn shards(&self) -> Shards {
        Shards { carries: self.core.records.topic_shard_members }
    }

    /// Whether a shard has room again for those below it.
    async fn has_emptied(&self, shard: u16) -> Result<bool, DhtError> {
        // So many say that it has not.
        let enough = (0..self.shards().carries).find(|members| !self.shards().has_emptied(*members));
        let (seen, report) = self.visit(shard, enough.unwrap_or(self.shards().carries)).await?;
        Ok(says_all(&report) && self.shards().has_emptied(seen.count()))
    }

    /// Members of one shard after another, beginning with what was read of the first one: those below each that may have some there.
    async fn gather(
        &self,
        wanted: usize,
        first: Seen,
        report: &mut DhtReport,
    ) -> Result<Vec<Member>, DhtError> {
        let mut members: BTreeMap<PeerId, Shown> = BTreeMap::new();
        let (mut next, mut under_way) = (VecDeque::new(), FuturesUnordered::new());
        let mut visited = None;
        if report.ended == Ended::Found && first.count() < wanted {
            // As many records were there, and some of those who have left.
            next.push_back((0, wanted.saturating_mul(4)));
        } else {
            visited = Some((0, first));
        }
        loop {
            if let Some((shard, seen)) = visited.take() {
                if self.shards().goes_on_below(seen.count() + seen.left) {
                    next.extend(shards_below(shard).into_iter().map(|below| (below, wanted)));
                }
                for (peer, shown) in seen.ads {
                    // Who moves stands in two for a moment.
                    if members.get(&peer).is_none_or(|known| known.seq < shown.seq) {
                        members.insert(peer, shown);
                    }
                }
            }
            if members.values().filter(|shown| shown.borne_out).count() >= wanted {
                report.ended = Ended::Found;
                break;
            }
            while under_way.len() < SHARDS_AT_ONCE
                && let Some((shard, most)) = next.pop_front()
            {
                under_way.push(async move { (shard, self.visit_from(shard, wanted, most).await) });
            }
            match under_way.next().await {
                None => break,
                Some((shard, Ok((seen, its)))) => {
                    report.add(&its);
                    visited = Some((shard, seen));
                }
                Some((_, Err(DhtError::Closed))) => return Err(DhtError::Closed),
                // What the other shards have is there all the same.
                Some((_, Err(DhtError::NoContacts))) => report.ended = Ended::NoContacts,
                Some((_, Err(_))) => report.ended = Ended::TooMany,
            }
        }
        // What one holder alone shows comes last.
        let mut members: Vec<_> = members.into_iter().collect();
        members.sort_by_key(|(_, shown)| !shown.borne_out);
        members.truncate(wanted);
        Ok(members.into_iter().map(|(peer, Shown { ad, .. })| Member { peer, ad }).collect())
    }

    /// The first shard that has room, of those in which this node may stand; `None` where that cannot be told for one who `stands` somewhere. Such a one goes up only to where members
    /// are missing, and further down only from where twice as many are as should be, and then not if it is one of the first of them.
    async fn walk(&self, stands: Option<u16>) -> Result<Option<u16>, DhtError> {
        let (me, shards) = (&self.dht.shared.me, self.shards());
        for depth in 0..MAX_SHARD_DEPTH {
            let shard = shard_at(me, depth);
            let here = stands == Some(shard);
            let most = Shards { carries: if here { 2 * shards.carries } else { shards.carries } };
            // With one's own.
            let (seen, report) = self.visit(shard, most.carries + 1).await?;
            let others = seen.members().filter(|peer| *peer != me).count();
            let room = match stands {
                _ if here => {
                    let first = || seen.members().take(shards.carries).any(|peer| peer == me);
                    most.has_room(others) || first()
                }
                Some(stands) if depth < depth_of(stands) => shards.has_emptied(others),
                // An earlier run of this node stands there.
                _ => most.has_room(others) || seen.ads.contains_key(me),
            };
            if room {
                return Ok((stands.is_none() || here || says_all(&report)).then_some(shard));
            }
        }
        Ok(Some(shard_at(me, MAX_SHARD_DEPTH)))
    }

    /// One shard, with as many members as are wanted, if they are there.
    async fn visit(&self, shard: u16, wanted: usize) -> Result<(Seen, DhtReport), DhtError> {
        self.visit_from(shard, wanted, wanted).await
    }

    /// The same, beginning with so many records.
    async fn visit_from(
        &self,
        shard: u16,
        wanted: usize,
        mut most: usize,
    ) -> Result<(Seen, DhtReport), DhtError> {
        let limit = self.core.lookups.max_values;
        loop {
            let (seen, report) = self.read(shard, most.min(limit)).await?;
            if seen.count() >= wanted || report.ended != Ended::Found || most >= limit {
                return Ok((seen, report));
            }
            most = most.saturating_mul(4);
        }
    }

    /// Up to so many records of one shard.
    async fn read(&self, shard: u16, most: usize) -> Result<(Seen, DhtReport), DhtError> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok((Seen::default(), DhtReport::of(&Outcome::empty(Ended::Deadline))));
        }
        let of = self.dht.core().cloned();
        let read = move |outcome: &Outcome| Ok((seen(&*of?, outcome), DhtReport::of(outcome)));
        let reading = self.dht.call(collect(self.core, self.topic, shard, most), read);
        reading.under(self.options).deadline(left).await
    }
}

/// Whether what was read is all that is there, as far as most of those who were asked can tell: a node whose network is down learns nothing.
fn says_all(report: &DhtReport) -> bool {
    let counts = &report.counts;
    matches!(report.ended, Ended::Complete | Ended::Found) && counts.answered > counts.failed
}

fn seen(core: &DhtCore, outcome: &Outcome) -> Seen {
    let mut seen = Seen::default();
    for found in &outcome.values {
        let Ok(record) = Record::open(&core.network, &found.value) else { continue };
        if record.is_tombstone() {
            seen.left += usize::from(found.borne_out);
        } else if let Some(ad) = record.body().and_then(|body| Ad::decode(body).ok()) {
            let shown = Shown { seq: record.version().seq, ad, borne_out: found.borne_out };
            seen.ads.insert(record.publisher(), shown);
        }
    }
    seen
}

/// An ad of this node's.
struct Stands {
    shard: u16,
    ad: Ad,
    seq: u64,
    lasts: Duration,
    renewed: bool,
    state: SetState,
}

fn stands(view: &SetView) -> Option<Stands> {
    let Place::Topic { shard, .. } = *view.record.place() else { return None };
    let ad = Ad::decode(view.record.body().filter(|body| !body.is_empty())?).ok()?;
    if view.state == SetState::Expired {
        return None;
    }
    let (seq, renewed) = (view.record.version().seq, view.renews.is_some());
    Some(Stands { shard, ad, seq, lasts: view.lasts, renewed, state: view.state })
}

fn newest(here: &[Stands]) -> Option<&Stands> {
    here.iter().max_by_key(|stands| stands.seq)
}

fn collect(core: &DhtCore, topic: &str, shard: u16, wanted: usize) -> Result<Operation, DhtError> {
    let target = Place::of_topic(topic, shard).target(&core.network);
    let wanted = target.map(|target| Operation::Collect { target, wanted });
    wanted.ok_or_else(|| DhtError::Record("its name is too long".into()))
}

/// Looks twice in the life of an ad whether those of this node stand where they should; not all nodes at once.
pub(crate) async fn keep_topics(shared: Arc<Shared>) {
    let share = f64::from(Key::of_peer(&shared.me).to_bytes()[0]) / 255.0;
    let dht = Dht { shared };
    let Ok(core) = dht.core().cloned() else { return };
    let mut looked = BTreeMap::new();
    loop {
        tokio::time::sleep(core.records.topic.default_ttl.mul_f64(0.375 + share / 8.0)).await;
        if dht.review_topics(&mut looked).await.is_err() {
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
    const CARRIES: usize = 4;

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

    /// A record in a shard by a key that is no node's.
    fn strange(dht: &Dht, number: u8, shard: u16, body: Bytes) -> Record {
        let core = dht.core().unwrap();
        let unix = dht.shared.clock.now().unix;
        let draft =
            Draft::new(Place::of_topic("chess", shard), core.next_seq(unix), unix.as_secs() + 3600, body);
        Record::sign(&NodeKey::from_seed([number; 32]), &core.network, draft).unwrap()
    }

    /// Members that are no nodes, in a shard; without an ad they leave it.
    async fn strangers(dht: &Dht, numbers: std::ops::Range<u8>, shard: u16, ad: Option<Ad>) -> Vec<PeerId> {
        let mut members = Vec::new();
        for number in numbers {
            let record = strange(dht, number, shard, ad.as_ref().map(Ad::encode).unwrap_or_default());
            let (target, value) = (record.target().clone(), record.to_bytes());
            dht.call(Ok(Operation::Put { target, value, replicas: 20 }), stored).quorum(2).await.unwrap();
            members.push(record.publisher());
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

    /// Where a node stands in the topic.
    async fn standing(node: &Node) -> Vec<u16> {
        let here = node.dht().in_topics().await.unwrap().remove("chess").unwrap_or_default();
        here.iter().map(|stands| stands.shard).collect()
    }

    async fn stands_at(node: &Node) -> Stands {
        node.dht().in_topics().await.unwrap().remove("chess").unwrap().pop().unwrap()
    }

    async fn close(nodes: Vec<Node>) {
        for node in nodes {
            node.close().await;
        }
    }

    /// AL-38, AL w11, dht.md B.4: whoever joins a large topic stands where there is room, and comes back up when others have left.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_node_stands_in_the_first_shard_of_a_topic_that_has_room_and_readers_find_all() {
        let nodes = network(5).await;
        let reader = nodes[0].dht();
        let mut members = Vec::new();
        for node in &nodes[1..3] {
            node.dht().announce(&ad()).await.unwrap();
            assert_eq!(standing(node).await, [0]);
            members.push(node.peer_id());
        }
        found(&reader, &members).await;
        let first = strangers(&reader, 1..5, 0, Some(ad())).await;
        for node in &nodes[3..] {
            node.dht().announce(&ad()).await.unwrap();
            assert_eq!(standing(node).await, [shard_at(&node.peer_id(), 1)]);
            members.push(node.peer_id());
        }
        for shard in [1, 2] {
            let numbers = 10 * shard as u8..10 * shard as u8 + 5;
            members.extend(strangers(&reader, numbers, shard, Some(ad())).await);
        }
        found(&reader, members.iter().chain(&first)).await;
        nodes[3].dht().leave("chess").await.unwrap();
        assert!(standing(&nodes[3]).await.is_empty());
        nodes[3].dht().announce(&ad()).await.unwrap();
        assert_eq!(standing(&nodes[3]).await, [shard_at(&nodes[3].peer_id(), 2)]);
        found(&reader, members.iter().chain(&first)).await;
        // A topic that stands still moves nobody.
        for node in &nodes[1..] {
            let before = standing(node).await;
            node.dht().review_topics(&mut BTreeMap::new()).await.unwrap();
            assert_eq!(standing(node).await, before);
        }
        // What others leave behind hides nobody until those below have come up.
        strangers(&reader, 1..5, 0, None).await;
        found(&reader, &members).await;
        nodes[4].dht().review_topics(&mut BTreeMap::new()).await.unwrap();
        assert_eq!(standing(&nodes[4]).await, [0]);
        found(&reader, &members).await;
        // What a node says anew, it says where it stands.
        nodes[3].dht().announce(&Ad { brief: "blitz".into(), ..ad() }).once().await.unwrap();
        assert_eq!(standing(&nodes[3]).await, [shard_at(&nodes[3].peer_id(), 2)]);
        found(&reader, &members).await;
        close(nodes).await;
    }

    /// However many have left a shard, those that are there are found; who wants few gets no more.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn those_who_have_left_hide_nobody() {
        let nodes = network(4).await;
        let reader = nodes[0].dht();
        strangers(&reader, 1..30, 0, None).await;
        let mut members = strangers(&reader, 30..33, 0, Some(ad())).await;
        members.extend(strangers(&reader, 33..35, 1, Some(ad())).await);
        found(&reader, &members).await;
        for wanted in 0..5 {
            assert_eq!(reader.topic("chess", wanted).await.unwrap().0.len(), wanted.max(1));
        }
        // Who stands nowhere can leave all the same: an earlier run may have joined.
        nodes[1].dht().leave("chess").await.unwrap();
        let all = nodes[1].dht().published().await.unwrap();
        let gone: Vec<_> = all.iter().filter(|one| one.what.starts_with("topic")).collect();
        assert!(gone[0].tombstone && !gone[0].renewed && gone[0].what.contains("taken back"), "{gone:?}");
        close(nodes).await;
    }

    /// What the application does while its ad is moved counts more.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_leaves_or_says_something_else_while_it_moves_is_not_brought_back() {
        let nodes = network(5).await;
        let (reader, dht, me) = (nodes[0].dht(), nodes[1].dht(), nodes[1].peer_id());
        dht.announce(&ad()).await.unwrap();
        let before = stands_at(&nodes[1]).await;
        dht.leave("chess").await.unwrap();
        dht.move_to("chess", &before, 1, Options::default()).await.unwrap();
        assert!(standing(&nodes[1]).await.is_empty());
        found(&reader, []).await;
        dht.announce(&ad()).await.unwrap();
        let before = stands_at(&nodes[1]).await;
        dht.announce(&Ad { brief: "blitz".into(), ..ad() }).await.unwrap();
        dht.move_to("chess", &before, 1, Options::default()).await.unwrap();
        assert_eq!(stands_at(&nodes[1]).await.ad.brief, "blitz");
        assert_eq!(standing(&nodes[1]).await, [0]);
        found(&reader, [&me]).await;
        // Nothing has happened meanwhile: it stands there, and nowhere else.
        let before = stands_at(&nodes[1]).await;
        dht.move_to("chess", &before, 1, Options::default()).await.unwrap();
        assert_eq!(standing(&nodes[1]).await, [1]);
        // A move that came to nothing half way leaves two; the next look leaves one.
        dht.store(Place::of_topic("chess", 0), Ok(ad().encode())).await.unwrap();
        assert_eq!(standing(&nodes[1]).await.len(), 2);
        dht.review_topics(&mut BTreeMap::new()).await.unwrap();
        assert_eq!(standing(&nodes[1]).await, [0]);
        close(nodes).await;
    }

    /// Many that come at once all see room; those that are not the first of them go further down, and the others stay.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn of_far_too_many_in_a_shard_the_first_stay() {
        let nodes = network(5).await;
        let (reader, looked) = (nodes[0].dht(), &mut BTreeMap::new());
        for node in &nodes[1..] {
            node.dht().announce(&ad()).await.unwrap();
        }
        let mut members: Vec<PeerId> = nodes[1..].iter().map(Node::peer_id).collect();
        members.extend(strangers(&reader, 1..CARRIES as u8, 0, Some(ad())).await);
        nodes[1].dht().review_topics(looked).await.unwrap();
        assert_eq!(standing(&nodes[1]).await, [0]);
        members.extend(strangers(&reader, 20..22, 0, Some(ad())).await);
        members.sort();
        found(&reader, &members).await;
        for node in &nodes[1..] {
            let (me, first) = (node.peer_id(), &members[..CARRIES]);
            let others = members.iter().filter(|member| **member != me).count();
            assert_eq!(others, 2 * CARRIES);
            node.dht().review_topics(looked).await.unwrap();
            let depth = u32::from(!first.contains(&me));
            assert_eq!(standing(node).await, [shard_at(&me, depth)]);
            // With one less nobody goes.
            if depth == 1 {
                break;
            }
        }
        close(nodes).await;
    }

    /// A node whose network is down, or whose time was up, learns nothing of how many there are.
    #[test]
    fn what_most_did_not_answer_says_nothing() {
        let says = |ended, answered, failed| {
            let mut outcome = Outcome::empty(ended);
            (outcome.counts.answered, outcome.counts.failed) = (answered, failed);
            says_all(&DhtReport::of(&outcome))
        };
        assert!(says(Ended::Complete, 10, 3) && says(Ended::Found, 1, 0));
        assert!(
            !says(Ended::Complete, 0, 0) && !says(Ended::Complete, 0, 20) && !says(Ended::Complete, 5, 5)
        );
        assert!(!says(Ended::Deadline, 10, 0) && !says(Ended::Exhausted, 10, 0));
    }

    /// one holder that shows a crowd sends nobody away.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_one_holder_alone_shows_fills_no_shard() {
        let nodes = network(4).await;
        let liar = nodes[0].dht();
        for number in 1..20 {
            let record = strange(&liar, number, 0, ad().encode());
            let plant = move |now, machine: &mut peerage_dht::Dht| {
                machine.plant_record(now, record.target(), &record.to_bytes()).unwrap()
            };
            assert_eq!(liar.of_machine(plant).await.unwrap(), peerage_dht::store::Put::Stored);
        }
        nodes[1].dht().announce(&ad()).await.unwrap();
        assert_eq!(standing(&nodes[1]).await, [0]);
        close(nodes).await;
    }

    /// The time of a call is that of all its parts together, and any time may be given.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_topic_of_many_shards_is_read_within_the_deadline() {
        let nodes = network(3).await;
        let dht = nodes[1].dht();
        let mut members = Vec::new();
        for shard in 0..7 {
            let numbers = 1 + 5 * shard as u8..5 + 5 * shard as u8;
            members.extend(strangers(&dht, numbers, shard, Some(ad())).await);
        }
        found(&dht, &members).await;
        let (all, report) = dht.topic("chess", 100).deadline(Duration::MAX).await.unwrap();
        assert_eq!((all.len(), report.ended), (28, Ended::Complete), "{report}");
        let (some, report) = dht.topic("chess", 100).deadline(Duration::from_micros(1)).await.unwrap();
        assert!(some.len() < 28 && report.ended == Ended::Deadline, "{report}");
        close(nodes).await;
    }
}
