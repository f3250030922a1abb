//! The shards of one topic, as this node sees them: read, gone through and walked down. How a topic is divided is [`peerage_dht::topic`]'s, and where this node stands `topics`'.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use peerage_dht::record::{Place, Record};
use peerage_dht::topic::{Ad, MAX_SHARD_DEPTH, MAX_TOPIC_NAME, Shards, depth_of, shard_at, shards_below};
use peerage_dht::{Ended, Operation, Options, Outcome};
use peerage_identity::PeerId;
use tokio::time::Instant;

use super::DhtCore;
use super::handle::{Dht, DhtError};
use super::records::target_of;
use super::report::DhtReport;
use super::topics::Member;

/// Shards that one reader visits at once.
pub(crate) const SHARDS_AT_ONCE: usize = 4;

/// An ad that was found.
struct Shown {
    seq: u64,
    ad: Ad,
    /// Holders of two networks have it.
    borne_out: bool,
}

/// What stands in a shard.
#[derive(Default)]
pub(super) struct Seen {
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

/// Members of all shards. Of what one holder alone shows no more is kept than is wanted: such a one can make up as many as it likes, in each shard.
struct Gathered {
    wanted: usize,
    borne_out: BTreeMap<PeerId, Shown>,
    alone: BTreeMap<PeerId, Shown>,
}

impl Gathered {
    fn of(wanted: usize) -> Self {
        Self { wanted, borne_out: BTreeMap::new(), alone: BTreeMap::new() }
    }

    /// Who moves stands in two shards for a moment: what it said last counts.
    fn take_in(&mut self, seen: Seen) {
        for (peer, shown) in seen.ads {
            let alone = self.alone.remove(&peer);
            let known = self.borne_out.remove(&peer).or(alone);
            let borne_out = shown.borne_out || known.as_ref().is_some_and(|known| known.borne_out);
            let newest = known.filter(|known| known.seq >= shown.seq).unwrap_or(shown);
            let newest = Shown { borne_out, ..newest };
            if borne_out {
                self.borne_out.insert(peer, newest);
            } else if self.alone.len() < self.wanted {
                self.alone.insert(peer, newest);
            }
        }
    }

    fn is_enough(&self) -> bool {
        self.borne_out.len() >= self.wanted
    }

    /// What one holder alone shows comes last.
    fn members(self) -> Vec<Member> {
        let all = self.borne_out.into_iter().chain(self.alone).take(self.wanted);
        all.map(|(peer, Shown { ad, .. })| Member { peer, ad }).collect()
    }
}

/// A look at a topic, until its time is over.
pub(super) struct Look<'a> {
    dht: &'a Dht,
    core: &'a DhtCore,
    topic: &'a str,
    options: Options,
    end: Instant,
}

impl<'a> Look<'a> {
    /// One that may take so long.
    pub(super) fn new(
        dht: &'a Dht,
        core: &'a DhtCore,
        topic: &'a str,
        options: Options,
        within: Duration,
    ) -> Self {
        Self { dht, core, topic, options, end: Instant::now() + within.min(Options::MOST_DEADLINE) }
    }

    fn shards(&self) -> Shards {
        Shards { carries: self.core.records.topic_shard_members }
    }

    /// Whether a shard has room again for those below it.
    pub(super) async fn has_emptied(&self, shard: u16) -> Result<bool, DhtError> {
        let (seen, report) = self.visit(shard, self.shards().kept()).await?;
        Ok(says_all(&report) && self.shards().has_emptied(seen.count()))
    }

    /// Members of one shard after another, beginning with what was read of the first one.
    pub(super) async fn gather(
        &self,
        wanted: usize,
        first: Seen,
        report: &mut DhtReport,
    ) -> Result<Vec<Member>, DhtError> {
        let visit = |shard, most| self.visit_from(shard, wanted, most);
        gather(self.shards(), wanted, first, report, visit).await
    }

    /// The first shard that has room, of those in which this node may stand; `None` where that cannot be told for one who `stands` somewhere. Such a one goes up only to where members
    /// are missing, and further down only from where twice as many are as should be, and then not if it is one of the first of them.
    pub(super) async fn walk(&self, stands: Option<u16>) -> Result<Option<u16>, DhtError> {
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

/// Visits the shards below each that may have members there, until as many were seen as are wanted; `visit` takes a shard and how many of its records are read at first.
async fn gather<V>(
    shards: Shards,
    wanted: usize,
    first: Seen,
    report: &mut DhtReport,
    visit: impl Fn(u16, usize) -> V,
) -> Result<Vec<Member>, DhtError>
where
    V: Future<Output = Result<(Seen, DhtReport), DhtError>>,
{
    let mut gathered = Gathered::of(wanted);
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
            if shards.goes_on_below(seen.count() + seen.left) {
                next.extend(shards_below(shard).into_iter().map(|below| (below, wanted)));
            }
            gathered.take_in(seen);
        }
        if gathered.is_enough() {
            report.ended = Ended::Found;
            break;
        }
        while under_way.len() < SHARDS_AT_ONCE
            && let Some((shard, most)) = next.pop_front()
        {
            let visiting = visit(shard, most);
            under_way.push(async move { (shard, visiting.await) });
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
    Ok(gathered.members())
}

/// Whether what was read is all that is there, as far as most of those who were asked can tell: a node whose network is down learns nothing.
fn says_all(report: &DhtReport) -> bool {
    let counts = &report.counts;
    matches!(report.ended, Ended::Complete | Ended::Found) && counts.answered > counts.failed
}

/// The records that were read, by who signed them.
pub(super) fn seen(core: &DhtCore, outcome: &Outcome) -> Seen {
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

/// What reads up to so many records of a shard.
pub(super) fn collect(core: &DhtCore, topic: &str, shard: u16, wanted: usize) -> Result<Operation, DhtError> {
    if !(1..=MAX_TOPIC_NAME).contains(&topic.len()) {
        return Err(DhtError::Key { length: topic.len(), most: MAX_TOPIC_NAME });
    }
    let target = target_of(core, &Place::of_topic(topic, shard))?;
    Ok(Operation::Collect { target, wanted })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

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

    fn seen_of(shown: impl IntoIterator<Item = (u64, u64, bool)>) -> Seen {
        let ads = shown.into_iter().map(|(peer, seq, borne_out)| {
            let ad = Ad { topic: "chess".into(), brief: seq.to_string(), ..Ad::default() };
            (peer_numbered(peer), Shown { seq, ad, borne_out })
        });
        Seen { ads: ads.collect(), left: 0 }
    }

    fn peer_numbered(number: u64) -> PeerId {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&number.to_be_bytes());
        peerage_identity::NodeKey::from_seed(seed).peer_id()
    }

    /// one holder that makes up members in each shard costs no memory, and pushes nobody out.
    #[test]
    fn of_what_one_holder_alone_shows_no_more_is_kept_than_is_wanted() {
        let mut gathered = Gathered::of(10);
        for shard in 0..20 {
            gathered.take_in(seen_of((0..50).map(|number| (1_000 + 50 * shard + number, 1, false))));
            assert_eq!(gathered.alone.len(), 10);
        }
        gathered.take_in(seen_of([(1, 1, true), (2, 1, true)]));
        assert!(!gathered.is_enough());
        let members: Vec<PeerId> = gathered.members().into_iter().map(|member| member.peer).collect();
        assert_eq!(members.len(), 10);
        assert!(members[..2].contains(&peer_numbered(1)) && members[..2].contains(&peer_numbered(2)));
    }

    /// Who moves is one member, with what it said last, in whichever order its shards are read.
    #[test]
    fn who_stands_in_two_shards_is_one_member() {
        for orders in [[(1, 5, true), (1, 6, false)], [(1, 6, false), (1, 5, true)]] {
            let mut gathered = Gathered::of(10);
            orders.into_iter().for_each(|shown| gathered.take_in(seen_of([shown])));
            assert_eq!((gathered.borne_out.len(), gathered.alone.len()), (1, 0));
            assert_eq!(gathered.members()[0].ad.brief, "6");
        }
    }

    /// a topic of all shards that there can be is read to its end, four shards at once.
    #[tokio::test]
    async fn a_topic_of_many_shards_is_read_four_at_once() {
        let full = |shard: u16| seen_of((0..2).map(|number| (2 * u64::from(shard) + number, 1, true)));
        let (under_way, most, visits) = (Cell::new(0), Cell::new(0), Cell::new(0));
        let visit = |shard, _| {
            let (under_way, most, visits) = (&under_way, &most, &visits);
            async move {
                visits.set(visits.get() + 1);
                under_way.set(under_way.get() + 1);
                most.set(most.get().max(under_way.get()));
                // Not all take as long.
                for _ in 0..=shard % 3 {
                    tokio::task::yield_now().await;
                }
                under_way.set(under_way.get() - 1);
                Ok((full(shard), DhtReport::of(&Outcome::empty(Ended::Complete))))
            }
        };
        let mut report = DhtReport::of(&Outcome::empty(Ended::Complete));
        let members = gather(Shards { carries: 2 }, 2_000, full(0), &mut report, visit).await.unwrap();
        let all = 2usize.pow(MAX_SHARD_DEPTH + 1) - 1;
        assert_eq!((members.len(), visits.get()), (2 * all, all - 1));
        assert_eq!((most.get(), report.ended), (SHARDS_AT_ONCE, Ended::Complete));
    }
}
