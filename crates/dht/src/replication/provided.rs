//! What we have said that we provide: told again before those who were told forget it, until we provide it no more.

use std::collections::BTreeMap;
use std::time::Duration;

use peerage_machine::{Now, Random};

use super::ReplicationConfig;
use crate::{Contact, Key, Target};

/// The things that we provide.
#[derive(Debug)]
pub struct Provided {
    config: ReplicationConfig,
    /// How often they are told again.
    every: Duration,
    things: BTreeMap<Key, Thing>,
    /// One is told again at a time: there may be many, and nobody waits for them.
    telling: bool,
}

#[derive(Debug)]
struct Thing {
    target: Target,
    provider: Contact,
    replicas: usize,
    /// When it is told again, as [`Now::mono`].
    due: Duration,
    /// A caller or we ourselves are telling it.
    under_way: bool,
    /// We have moved since that began: those who are being told hear of where we were.
    moved: bool,
    /// Nobody was told of it yet.
    fresh: bool,
}

/// What is to be told again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tell {
    /// What.
    pub target: Target,
    /// We, with our addresses as they are now.
    pub provider: Contact,
    /// How many are told.
    pub replicas: usize,
}

impl Provided {
    /// Nothing yet. What holders keep for `provider_ttl` is told again after half of that.
    pub fn new(config: ReplicationConfig, provider_ttl: Duration) -> Self {
        Self { config, every: provider_ttl / 2, things: BTreeMap::new(), telling: false }
    }

    /// From now on we provide something, and somebody is telling it. Says whether there is room.
    pub fn begin(&mut self, now: Now, target: &Target, provider: Contact, replicas: usize) -> bool {
        let known = self.things.get(target.key());
        if known.is_none() && self.things.len() >= self.config.max_provided {
            return false;
        }
        let (fresh, due) = (known.is_none_or(|thing| thing.fresh), now.mono + self.every);
        let thing =
            Thing { target: target.clone(), provider, replicas, due, under_way: true, moved: false, fresh };
        self.things.insert(*target.key(), thing);
        true
    }

    /// It was told, to enough or to too few, or its caller has given up (`dropped`) before anybody was told: then it is as if it had never begun. Says whether it is
    /// looked after.
    pub fn told(&mut self, now: Now, key: &Key, enough: bool, dropped: bool, random: &mut Random) -> bool {
        let Some(thing) = self.things.get_mut(key) else { return false };
        if dropped && thing.fresh {
            self.things.remove(key);
            return false;
        }
        thing.under_way = false;
        thing.fresh &= dropped;
        // A little early each time, so that what was told together is not told together for ever.
        let pause = match (std::mem::take(&mut thing.moved), enough) {
            (true, _) => Duration::ZERO,
            (false, true) => self.every - random.up_to(self.every / 10),
            (false, false) => self.config.probe_every.min(self.every),
        };
        thing.due = now.mono + pause;
        true
    }

    /// What [`Provided::poll`] wanted to be told was told.
    pub fn told_again(&mut self, now: Now, key: &Key, enough: bool, random: &mut Random) {
        self.telling = false;
        self.told(now, key, enough, false, random);
    }

    /// We provide it no more. Says whether we did.
    pub fn stop(&mut self, key: &Key) -> bool {
        self.things.remove(key).is_some()
    }

    /// We are to be found elsewhere: everything is told again.
    pub fn moved(&mut self, now: Now, provider: &Contact) {
        for thing in self.things.values_mut().filter(|thing| thing.provider != *provider) {
            thing.provider = provider.clone();
            (thing.due, thing.moved) = (now.mono, thing.under_way);
        }
    }

    /// How many things we provide.
    pub fn len(&self) -> usize {
        self.things.len()
    }

    /// Whether we provide nothing.
    pub fn is_empty(&self) -> bool {
        self.things.is_empty()
    }

    /// What we provide.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.things.values().map(|thing| &thing.target)
    }

    /// We ourselves, where we provide it.
    pub fn of(&self, key: &Key) -> Option<&Contact> {
        self.things.get(key).map(|thing| &thing.provider)
    }

    /// When [`Provided::poll`] is next needed, as [`Now::mono`].
    pub fn next_due(&self) -> Option<Duration> {
        let waiting = self.things.values().filter(|thing| !thing.under_way && !self.telling);
        waiting.map(|thing| thing.due).min()
    }

    /// What is to be told again now; [`Provided::told_again`] says what came of it.
    pub fn poll(&mut self, now: Now) -> Option<Tell> {
        let due = |thing: &&mut Thing| !thing.under_way && thing.due <= now.mono;
        let waiting = self.things.values_mut().filter(due);
        let thing = waiting.filter(|_| !self.telling).min_by_key(|thing| thing.due)?;
        (thing.under_way, thing.moved, self.telling) = (true, false, true);
        let Thing { target, provider, replicas, .. } = thing;
        Some(Tell { target: target.clone(), provider: provider.clone(), replicas: *replicas })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numbered::contact;

    const HOUR: u64 = 3600;

    fn at(seconds: u64) -> Now {
        let time = Duration::from_secs(seconds);
        Now { mono: time, unix: time }
    }

    fn target(number: usize) -> Target {
        Target::new(format!("thing {number}").as_bytes()).unwrap()
    }

    fn provided() -> (Provided, Random) {
        let config = ReplicationConfig { max_provided: 3, ..ReplicationConfig::default() };
        (Provided::new(config, Duration::from_secs(48 * HOUR)), Random::from_number(1))
    }

    #[test]
    fn what_is_provided_is_told_again_after_half_of_the_time_that_it_is_kept_until_it_is_no_more() {
        let (mut provided, mut random) = provided();
        let song = target(1);
        assert!(provided.begin(at(0), &song, contact(1), 20));
        assert_eq!((provided.next_due(), provided.poll(at(99 * HOUR))), (None, None), "its caller tells it");
        assert!(provided.told(at(5), song.key(), true, false, &mut random));
        let due = provided.next_due().unwrap();
        assert!((21 * HOUR..=24 * HOUR + 5).contains(&due.as_secs()), "{due:?}");
        assert_eq!(provided.poll(at(due.as_secs() - 1)), None);
        let again = provided.poll(at(25 * HOUR)).unwrap();
        assert_eq!((again.target, again.provider, again.replicas), (song.clone(), contact(1), 20));
        assert_eq!(provided.poll(at(25 * HOUR)), None, "one at a time");
        provided.told_again(at(25 * HOUR), song.key(), false, &mut random);
        assert_eq!(provided.next_due(), Some(Duration::from_secs(25 * HOUR + 900)), "too few were told");
        provided.moved(at(25 * HOUR + 1), &contact(2));
        assert_eq!(provided.poll(at(25 * HOUR + 1)).unwrap().provider, contact(2));
        // Whoever moves while it is being told is told of once more.
        provided.moved(at(25 * HOUR + 2), &contact(3));
        provided.told_again(at(25 * HOUR + 3), song.key(), true, &mut random);
        assert_eq!(provided.poll(at(25 * HOUR + 3)).unwrap().provider, contact(3));
        assert!(provided.stop(song.key()) && !provided.stop(song.key()));
        provided.told_again(at(25 * HOUR + 4), song.key(), true, &mut random);
        assert_eq!((provided.next_due(), provided.len()), (None, 0));
    }

    #[test]
    fn so_many_things_are_told_again_and_what_nobody_was_told_of_is_not() {
        let (mut provided, mut random) = provided();
        let begun = (0..5).filter(|number| provided.begin(at(0), &target(*number), contact(1), 20));
        assert_eq!(begun.count(), 3);
        assert!(provided.begin(at(1), &target(2), contact(1), 20), "one of them anew");
        assert!(!provided.told(at(2), target(0).key(), false, true, &mut random));
        assert!(provided.told(at(2), target(1).key(), true, false, &mut random));
        assert!(provided.begin(at(3), &target(1), contact(1), 20));
        assert!(provided.told(at(4), target(1).key(), false, true, &mut random), "it was told before");
        assert_eq!(provided.targets().count(), 2);
    }
}
