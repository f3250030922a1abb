//! Topics: who is in one, joining it and leaving it, and whether this node still stands where it should. How the shards of a large topic are read and walked down is `shards`'.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use peerage_dht::record::Place;
use peerage_dht::replication::{SetState, SetView};
use peerage_dht::topic::{Ad, MAX_AD_TAGS, MAX_BRIEF_CHARS, MAX_TOPIC_NAME, shard_above};
use peerage_dht::{Class, Key, Options};
use peerage_identity::PeerId;
use tokio::time::Instant;

use super::DhtCore;
use super::handle::{Dht, DhtCall, DhtError, Terms, stored};
use super::report::DhtReport;
use super::shards::{Look, collect, seen};
use crate::shared::Shared;

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

impl Dht {
    /// Joins a topic: others who ask for it find this node and what it says about itself. The ad lasts for an hour at a time and is renewed while the node runs
    /// ([`DhtCall::lasts`], [`DhtCall::once`]), until [`Dht::leave`].
    ///
    /// Where the topic has room is looked up first, within half of the time that the call may take: a large one is divided into shards ([`peerage_dht::topic`]). A node that stands
    /// in the topic already changes what it says where it stands.
    pub fn announce(&self, ad: &Ad) -> DhtCall<DhtReport> {
        let (dht, ad) = (self.clone(), ad.clone());
        let make = move |options: Options, terms: Terms| async move {
            let core = dht.core()?.clone();
            // What cannot be published is said before anybody is asked.
            check(&ad)?;
            dht.draft(&core, Place::of_topic(&ad.topic, 0), ad.encode(), &terms)?;
            let here = dht.in_topics().await?.remove(&ad.topic).unwrap_or_default();
            let shard = match newest(&here).filter(|stands| stands.renewed) {
                Some(stands) => stands.shard,
                None => {
                    let deadline = options.deadline.unwrap_or_else(|| core.lookups.deadline(options.class));
                    let look = Look::new(&dht, &core, &ad.topic, options, deadline / 2);
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
            check(&Ad { topic: topic.clone(), ..Ad::default() })?;
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
                .unwrap_or_else(|| core.lookups.deadline(options.class).saturating_sub(report.took));
            let begun = Instant::now();
            let look = Look::new(&dht, &core, &topic, options, left);
            let members = look.gather(wanted, first, &mut report).await?;
            report.took += begun.elapsed();
            Ok((members, report))
        })
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
            let Some(stands) = newest(&here) else { continue };
            let looks = looked.entry(topic.clone()).or_default();
            *looks = looks.saturating_add(1);
            let young = *looks <= YOUNG;
            let reviewed = async {
                // A move that came to nothing half way, or two calls at once.
                for stale in here.iter().filter(|other| other.shard != stands.shard) {
                    let leaving = self.store(Place::of_topic(&topic, stale.shard), Ok(Bytes::new()));
                    leaving.class(Class::Normal).await?;
                }
                // What is not renewed stays where it is until it expires.
                if stands.renewed { self.review(&core, &topic, stands, young).await } else { Ok(()) }
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
        let within = 2 * core.lookups.deadline(options.class);
        let look = Look::new(self, core, topic, options, within);
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

/// Whether an ad can stand in its topic.
///
/// # Errors
/// [`DhtError::Record`] with what is wrong.
fn check(ad: &Ad) -> Result<(), DhtError> {
    let Ad { topic, name, protocols, tags, brief, .. } = ad;
    let mut texts = [topic, name, brief].into_iter().chain(protocols).chain(tags);
    let brief = brief.chars().count();
    let why = if !(1..=MAX_TOPIC_NAME).contains(&topic.len()) {
        format!("the topic's name has {} bytes: give 1 to {MAX_TOPIC_NAME}", topic.len())
    } else if brief > MAX_BRIEF_CHARS {
        format!("its text has {brief} characters: give at most {MAX_BRIEF_CHARS} characters")
    } else if tags.len().max(protocols.len()) > MAX_AD_TAGS {
        let (tags, protocols) = (tags.len(), protocols.len());
        format!("it has {tags} tags and {protocols} protocols: give at most {MAX_AD_TAGS} of each")
    } else if texts.any(|text| text.contains(char::is_control)) {
        "there are control characters in its texts: give plain ones".to_owned()
    } else if Ad::decode(&ad.encode()).is_err() {
        "it cannot be read again".to_owned()
    } else {
        return Ok(());
    };
    Err(DhtError::Record(why))
}

fn newest(here: &[Stands]) -> Option<&Stands> {
    here.iter().max_by_key(|stands| stands.seq)
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
mod tests;
