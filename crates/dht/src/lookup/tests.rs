use super::*;
use crate::numbered::{address, contact, peer};
use crate::{Class, Key, Status};
use peerage_identity::DialAddress;

mod crowds;
mod find;
mod invariants;
mod limits;
mod warm;

const MS: fn(u64) -> Duration = Duration::from_millis;

fn at(millis: u64) -> Now {
    Now::ZERO.after(MS(millis))
}

fn target() -> Target {
    Target::new(b"target").unwrap()
}

/// The first 400 peers, the closest to the target first.
fn peers() -> Vec<Contact> {
    let mut all: Vec<Contact> = (1..400).map(contact).collect();
    all.sort_by_key(|contact| contact.key().distance(target().key()));
    all
}

/// Whoever was asked is met where it says that it is.
fn met(lookup: &Lookup, request: RequestId) -> IpAddr {
    let asked = lookup.candidates().find(|candidate| candidate.request == Some(request));
    let address =
        asked.and_then(|asked| asked.contact.addresses().first().and_then(DialAddress::socket_addr));
    address.map_or(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), |address| address.ip())
}

struct Story {
    lookup: Lookup,
    requests: u64,
}

impl Story {
    fn new(config: LookupConfig, goal: Goal, change: impl FnOnce(&mut Plan)) -> Self {
        let mut plan = Plan {
            target: target(),
            goal,
            pace: Pace::new(&config, Class::Interactive, 0, Some(MS(150))),
            k: 20,
            paths: 1,
            deadline: Duration::from_secs(10),
            size: None,
            usual: MS(150),
            patience: MS(300),
            grace: config.overdue_grace,
            watch: true,
        };
        change(&mut plan);
        Self { lookup: Lookup::new(Arc::new(config), plan, at(0)), requests: 0 }
    }

    fn seeded(goal: Goal, seeds: &[Contact]) -> Self {
        let mut story = Self::new(LookupConfig { cold_round_trips: 0.0, ..Default::default() }, goal, |_| {});
        story.seed(seeds);
        story
    }

    fn seed(&mut self, seeds: &[Contact]) {
        self.lookup.seed(seeds.iter().map(|seed| (seed.clone(), Hint::default())));
    }

    /// Does all that is wanted now; whom it asked, and what it wants then.
    fn go(&mut self, now: Now) -> (Vec<(RequestId, Contact, Cause)>, Next) {
        let mut asked = Vec::new();
        loop {
            let next = self.lookup.next(now);
            self.lookup.check().unwrap();
            let Next::Ask(place, cause) = next else { return (asked, next) };
            self.requests += 1;
            let request = RequestId(self.requests);
            asked.push((request, self.lookup.candidate(place).contact.clone(), cause));
            self.lookup.asked(now, place, request, cause);
        }
    }

    fn answer(&mut self, now: Now, request: RequestId, closer: &[Contact]) -> Option<Taken> {
        self.answer_with(now, request, &Answer { closer: closer.to_vec(), ..Answer::default() })
    }

    fn answer_with(&mut self, now: Now, request: RequestId, answer: &Answer) -> Option<Taken> {
        let mut known = |named: &Contact| Some((named.clone(), Hint::default()));
        let remote = met(&self.lookup, request);
        let taken = self.lookup.answered(
            now,
            &AcceptAll,
            &Came { request, rtt: MS(100), remote, answer },
            &mut known,
        );
        self.lookup.check().unwrap();
        taken
    }

    /// Answers everything that is asked, at once, until nothing more is wanted.
    fn finish(&mut self, mut now: Now, closer: &dyn Fn(&Contact) -> Vec<Contact>) -> (Ended, Now) {
        let mut open = Vec::new();
        loop {
            let (asked, next) = self.go(now);
            open.extend(asked);
            match next {
                Next::End(ended) => return (ended, now),
                Next::Wait(until) => match open.pop() {
                    Some((request, contact, _)) => {
                        now = now.after(MS(1));
                        self.answer(now, request, &closer(&contact));
                    }
                    None => now = Now { mono: until, ..now },
                },
                Next::Ask(..) => unreachable!("go answers it"),
            }
        }
    }
}

/// AL-25, AL-30: after the burst the next request starts when the stagger time has passed, when an answer comes or when a request fails; those not
/// started are not sent once the lookup is over.
#[test]
fn a_burst_then_one_by_stagger_by_answer_and_by_failure() {
    let all = peers();
    let mut story = Story::seeded(Goal::Closest, &all[..20]);
    let (burst, next) = story.go(at(0));
    assert_eq!(burst.len(), 4);
    assert!(burst.iter().all(|(.., cause)| *cause == Cause::Burst));
    assert_eq!(next, Next::Wait(MS(27)));
    assert_eq!(story.go(at(26)).0.len(), 0);
    let (staggered, _) = story.go(at(27));
    assert_eq!((staggered.len(), staggered[0].2), (1, Cause::Stagger));
    story.answer(at(30), burst[0].0, &[]);
    assert_eq!(story.go(at(30)).0[0].2, Cause::Answer);
    story.lookup.failed(at(31), burst[1].0, Failure::Refused);
    let (after, next) = story.go(at(31));
    assert_eq!((after.len(), after[0].2), (1, Cause::Failure));
    assert_eq!(next, Next::Wait(MS(58)));
}

/// At most `alpha` are in flight; a suspect holds no slot, and its answer is used.
#[test]
fn a_suspect_gives_its_slot_back_and_is_listened_to() {
    let all = peers();
    let config = LookupConfig { alpha: 3, cold_round_trips: 0.0, ..Default::default() };
    let mut story = Story::new(config, Goal::Closest, |_| {});
    story.seed(&all[10..40]);
    let (first, _) = story.go(at(0));
    assert_eq!(first.len(), 3);
    assert_eq!(story.go(at(200)).0.len(), 0, "the cap holds");
    let (second, _) = story.go(at(300));
    assert_eq!(second.len(), 3, "three are overdue");
    assert!(second.iter().all(|(.., cause)| *cause == Cause::Suspect));
    assert_eq!(story.lookup.counts.suspected, 3);
    let taken = story.answer(at(400), first[0].0, &all[..5]).unwrap();
    assert!(taken.first_hop && story.lookup.counts.late == 1);
    let (third, _) = story.go(at(600));
    assert_eq!(third[0].1, all[0], "what a late answer names is asked");
}

#[test]
fn the_soft_timeout_follows_what_is_known() {
    let all = peers();
    let config = LookupConfig { cold_round_trips: 2.0, ..Default::default() };
    let mut story = Story::new(config, Goal::Closest, |_| {});
    let hint = |patience, warm| Hint { patience, warm, rtt: Some(MS(50)), ..Hint::default() };
    let hints =
        [hint(Some(MS(200)), true), hint(Some(MS(200)), false), hint(None, true), hint(Some(MS(9)), true)];
    story.lookup.seed(all.iter().cloned().zip(hints));
    story.go(at(0));
    let due: Vec<u128> = all[..4]
        .iter()
        .map(|contact| {
            let candidates = &story.lookup.candidates;
            candidates.iter().find(|candidate| &candidate.contact == contact).unwrap().due.as_millis()
        })
        .collect();
    assert_eq!(due, [200, 300, 300, 100], "measured; with a handshake; as usual; never below the least");
}

/// AL-26, AL-31: the k closest that answer end a lookup, and nothing that did not answer is among them.
#[test]
fn the_closest_are_those_that_answered() {
    let all = peers();
    let mut story = Story::seeded(Goal::Closest, &all[60..80]);
    let closer = |_: &Contact| all[..25].to_vec();
    let (ended, _) = story.finish(at(0), &closer);
    assert_eq!(ended, Ended::Complete);
    let closest: Vec<&Contact> = story.lookup.closest().take(20).map(|c| &c.contact).collect();
    assert_eq!(closest, all[..20].iter().collect::<Vec<_>>());
    assert!(story.lookup.counts.asked <= 40, "{:?}", story.lookup.counts);
}

/// A suspect close to the target delays the end by a part of its timeout, no more; others are asked in its stead.
#[test]
fn the_end_waits_for_a_suspect_a_little_and_no_longer() {
    let all = peers();
    let mut story = Story::seeded(Goal::Closest, &all[..30]);
    let mut now = at(0);
    let mut open: Vec<RequestId> = Vec::new();
    let end = loop {
        let (asked, next) = story.go(now);
        // The two closest are silent.
        open.extend(asked.iter().filter(|(_, c, _)| !all[..2].contains(c)).map(|(request, ..)| *request));
        match (next, open.pop()) {
            (Next::End(ended), _) => break (ended, now.mono),
            (_, Some(request)) => drop(story.answer(now, request, &[])),
            (Next::Wait(until), None) => now = Now { mono: until.max(now.mono), ..now },
            (Next::Ask(..), None) => unreachable!(),
        }
    };
    let grace = MS(300).mul_f64(LookupConfig::default().overdue_grace);
    assert_eq!(end.0, Ended::Complete);
    assert!(end.1 >= MS(300) + grace && end.1 < MS(420), "{:?}", end.1);
    assert!(story.lookup.closest().count() >= 20);
}

/// AL-27, AL-31: the first final value ends a lookup; what is under way is given up.
#[test]
fn a_final_value_ends_it_at_once() {
    let all = peers();
    let mut story = Story::seeded(Goal::Value(1), &all[..20]);
    let (asked, _) = story.go(at(0));
    let values = vec![Bytes::from_static(b"v")];
    story.answer_with(at(100), asked[2].0, &Answer { values, ..Answer::default() });
    assert_eq!(story.go(at(100)).1, Next::End(Ended::Found));
    assert_eq!(story.lookup.cancel(at(100)).len(), 3);
    assert_eq!((story.lookup.counts.asked, story.lookup.counts.cancelled, story.lookup.hops), (4, 3, 1));
    assert!(story.answer(at(120), asked[0].0, &all).is_none(), "after the end nothing is taken in");
}

/// What stays open to a better one: each value is its rank.
struct Open;

impl Judge for Open {
    fn judge(&self, _: Now, _: &Target, value: &Bytes) -> Result<Judged, Invalid> {
        match value.first() {
            Some(0) | None => Err(Invalid { why: "zero" }),
            _ => Ok(Judged { slot: Bytes::new(), rank: value.clone(), is_final: false }),
        }
    }
}

/// Each value stands beside all others.
struct Slots;

impl Judge for Slots {
    fn judge(&self, _: Now, _: &Target, value: &Bytes) -> Result<Judged, Invalid> {
        Ok(Judged { slot: value.clone(), rank: Bytes::new(), is_final: false })
    }
}

fn valued(story: &mut Story, now: Now, request: RequestId, value: u8) {
    let answer = Answer { values: vec![Bytes::from(vec![value])], ..Answer::default() };
    let mut known = |named: &Contact| Some((named.clone(), Hint::default()));
    let remote = met(&story.lookup, request);
    story.lookup.answered(now, &Open, &Came { request, rtt: MS(100), remote, answer: &answer }, &mut known);
}

/// a quorum is of valid answers from distinct groups of addresses, and the newest value wins.
/// Contract C-49.
#[test]
fn a_quorum_needs_valid_answers_of_distinct_networks() {
    let mut all = peers();
    all[1] = Contact::new(*all[1].peer(), &all[0].addresses());
    let mut story = Story::seeded(Goal::Value(2), &all[..20]);
    let (asked, _) = story.go(at(0));
    let of = |contact: &Contact| asked.iter().find(|(_, asked, _)| asked.peer() == contact.peer()).unwrap().0;
    valued(&mut story, at(50), of(&all[0]), 5);
    valued(&mut story, at(50), of(&all[1]), 5);
    valued(&mut story, at(50), of(&all[2]), 0);
    assert!(matches!(story.go(at(50)).1, Next::Wait(_)), "one network and one liar");
    valued(&mut story, at(60), of(&all[3]), 7);
    assert_eq!(story.go(at(60)).1, Next::End(Ended::Found));
    let (values, _) = story.lookup.harvest.take();
    assert_eq!((values[0].value[0], story.lookup.counts.invalid), (7, 1));
}

#[test]
fn one_value_that_may_be_superseded_is_given_a_stagger_time() {
    let all = peers();
    let mut story = Story::seeded(Goal::Value(1), &all[..20]);
    let (asked, _) = story.go(at(0));
    valued(&mut story, at(50), asked[0].0, 5);
    let (more, next) = story.go(at(50));
    assert_eq!((more.len(), next), (0, Next::Wait(MS(77))), "and no more than two stay in flight");
    valued(&mut story, at(60), asked[1].0, 9);
    assert_eq!(story.go(at(77)).1, Next::End(Ended::Found));
    assert_eq!(story.lookup.harvest.take().0[0].value[0], 9);
}

/// AL-28, X-25: members of a topic come page by page, until all that the closest have is there.
#[test]
fn all_pages_of_all_the_closest_are_read_within_bounds() {
    let all = peers();
    let config = LookupConfig { max_pages: 3, cold_round_trips: 0.0, ..Default::default() };
    let mut story = Story::new(config, Goal::Values(1000), |_| {});
    story.seed(&all[..5]);
    let mut now = at(0);
    let (mut open, mut pages, mut number) = (Vec::new(), 0, 0u8);
    let ended = loop {
        let (asked, next) = story.go(now);
        pages += asked.iter().filter(|(.., cause)| *cause == Cause::Page).count();
        open.extend(asked);
        match (next, open.pop()) {
            (Next::End(ended), _) => break ended,
            (_, Some((request, ..))) => {
                number += 1;
                // An endless answerer: each page promises another one.
                let cursor = Some(Bytes::from_static(b"more"));
                let values = vec![Bytes::from(vec![1, number])];
                let answer = Answer { values, cursor, ..Answer::default() };
                let mut known = |named: &Contact| Some((named.clone(), Hint::default()));
                let remote = met(&story.lookup, request);
                let came = Came { request, rtt: MS(10), remote, answer: &answer };
                story.lookup.answered(now, &Slots, &came, &mut known);
            }
            (Next::Wait(until), None) => now = Now { mono: until, ..now },
            (Next::Ask(..), None) => unreachable!(),
        }
    };
    assert_eq!((ended, pages), (Ended::Complete, 15), "three further pages of each of five");
    assert_eq!(story.lookup.harvest.found(), 20);
}

/// AL-24: who is us, or known as dead, is not asked while others are there; who is all that is left is asked after all.
#[test]
fn those_in_quarantine_are_asked_only_when_nobody_else_is_left() {
    let all = peers();
    let mut story = Story::seeded(Goal::Closest, &[]);
    let shunned = |contact: &Contact| (contact.clone(), Hint { shunned: true, ..Hint::default() });
    story.lookup.seed(all[..3].iter().map(shunned));
    story.lookup.seed(all[3..5].iter().map(|contact| (contact.clone(), Hint::default())));
    let (asked, _) = story.go(at(0));
    assert!(asked.iter().all(|(_, contact, _)| !all[..3].contains(contact)));
    asked.iter().for_each(|(request, ..)| drop(story.lookup.failed(at(1), *request, Failure::Refused)));
    assert_eq!(story.go(at(1)).0.len(), 3);
}

/// a crowd in one subnet gets three requests as long as others are there.
#[test]
fn one_subnet_cannot_fill_a_lookup() {
    let all = peers();
    let crowd: Vec<Contact> = all[..30]
        .iter()
        .enumerate()
        .map(|(number, contact)| {
            Contact::new(*contact.peer(), &[format!("/ip4/20.9.9.{number}/udp/1/quic-v1").parse().unwrap()])
        })
        .collect();
    let mut story = Story::seeded(Goal::Closest, &crowd);
    story.seed(&all[30..60]);
    let (ended, _) = story.finish(at(0), &|_| Vec::new());
    assert_eq!(ended, Ended::Complete);
    let crowded = story.lookup.closest().filter(|c| crowd.contains(&c.contact)).count();
    assert_eq!(crowded, 3);
}

/// dht.md B.2 rule 8: paths share their stop, begin with distinct networks, and no candidate is on two.
#[test]
fn disjoint_paths_take_turns_and_share_their_stop() {
    let all = peers();
    let mut story = Story::new(LookupConfig::default(), Goal::Closest, |plan| plan.paths = 4);
    story.seed(&all[40..60]);
    let (burst, _) = story.go(at(0));
    let mut paths: Vec<u8> = burst
        .iter()
        .map(|(_, contact, _)| story.lookup.candidates.iter().find(|c| &c.contact == contact).unwrap().path)
        .collect();
    paths.sort_unstable();
    assert_eq!(paths, [0, 1, 2, 3]);
    let mut story = Story::new(LookupConfig::default(), Goal::Closest, |plan| plan.paths = 4);
    story.seed(&all[40..60]);
    let (ended, _) = story.finish(at(0), &|_| all[..22].to_vec());
    assert_eq!(ended, Ended::Complete);
    assert!(story.lookup.counts.asked <= 45, "{:?}", story.lookup.counts);
    let twin = Contact::new(peer(9999), &[address(1)]);
    let mut story = Story::new(LookupConfig::default(), Goal::Closest, |plan| plan.paths = 2);
    story.seed(&[contact(1), twin]);
    assert!(story.lookup.candidates.iter().all(|candidate| candidate.path == 0), "one network is one path");
}

/// dht.md B.2 rule 9: who names a peer closer than the size of the network makes likely is followed last, and another path is begun.
#[test]
fn an_answer_too_good_to_be_true_begins_another_path() {
    let all = peers();
    let mut story = Story::new(LookupConfig::default(), Goal::Value(2), |plan| plan.size = Some(400.0));
    story.seed(&all[40..60]);
    let (asked, _) = story.go(at(0));
    story.answer(at(1), asked[0].0, &all[30..40]);
    assert_eq!(story.lookup.plan.paths, 1);
    // With a size of ten the closest of four hundred would be a wonder: the same answer in a network so small is not believed.
    story.lookup.plan.size = Some(1e-4 / all[0].key().distance(target().key()).share() * 0.9);
    story.answer(at(2), asked[1].0, &all[..1]);
    assert_eq!((story.lookup.plan.paths, story.lookup.distrusted), (2, 1));
    assert!(story.lookup.take_steps().iter().any(|step| matches!(step.what, StepKind::Implausible { .. })));
}

/// What an answer makes needless is cancelled: requests to those who are far behind by now.
#[test]
fn an_answer_cancels_requests_that_it_makes_needless() {
    let all = peers();
    let mut story = Story::seeded(Goal::Closest, &all[100..120]);
    let (asked, _) = story.go(at(0));
    let first = story.answer(at(10), asked[0].0, &all[..20]).unwrap();
    assert!(first.needless.is_empty());
    let (more, _) = story.go(at(10));
    let needless = story.answer(at(20), more[0].0, &all[20..40]).unwrap().needless;
    assert_eq!(needless.len(), 3);
    assert_eq!(story.lookup.counts.cancelled, 3);
}

#[test]
fn a_liar_with_endless_names_costs_a_bounded_lookup() {
    let config = LookupConfig { max_candidates: 40, max_requests: 60, ..Default::default() };
    let mut story = Story::new(config, Goal::Closest, |_| {});
    story.seed(&[contact(1)]);
    let mut number = 1000;
    let mut now = at(0);
    let mut open = Vec::new();
    let ended = loop {
        let (asked, next) = story.go(now);
        open.extend(asked);
        match (next, open.pop()) {
            (Next::End(ended), _) => break ended,
            (_, Some((request, ..))) => {
                let lies: Vec<Contact> = (number..number + 32).map(contact).collect();
                number += 32;
                story.answer(now, request, &lies);
                assert!(story.lookup.candidates.len() <= 40 + 20);
            }
            (Next::Wait(until), None) => now = Now { mono: until, ..now },
            (Next::Ask(..), None) => unreachable!(),
        }
    };
    assert!(story.lookup.counts.asked <= 60, "{:?}", story.lookup.counts);
    assert!(matches!(ended, Ended::Complete | Ended::Exhausted));
}

#[test]
fn the_deadline_ends_it_with_the_reason() {
    let all = peers();
    let mut story = Story::new(LookupConfig::default(), Goal::Closest, |plan| plan.deadline = MS(100));
    story.seed(&all[..20]);
    assert!(matches!(story.go(at(99)).1, Next::Wait(until) if until == MS(100)));
    assert_eq!(story.go(at(100)).1, Next::End(Ended::Deadline));
    assert_eq!(story.lookup.cancel(at(100)).len(), 4);
}

/// A busy answer is an answer: the peer is alive, and no value comes of it.
#[test]
fn a_busy_peer_is_passed_by() {
    let all = peers();
    let mut story = Story::seeded(Goal::Value(1), &all[..20]);
    let (asked, _) = story.go(at(0));
    story.answer_with(at(5), asked[0].0, &Answer::status(Status::Busy));
    assert_eq!((story.lookup.counts.answered, story.lookup.harvest.found()), (1, 0));
    assert_eq!(story.go(at(5)).0.len(), 1);
}

#[test]
fn a_wide_lookup_asks_everybody_in_the_region() {
    let all = peers();
    let mut story = Story::seeded(Goal::Closest, &all[..60]);
    let region = all[49].key().distance(target().key());
    let (ended, _) = story.finish(at(0), &|_| Vec::new());
    assert_eq!(ended, Ended::Complete);
    assert!(story.lookup.closest().count() < 40);
    story.lookup.widen(region, 4);
    let (ended, _) = story.finish(at(100), &|_| Vec::new());
    assert_eq!(ended, Ended::Complete);
    assert!(story.lookup.closest().count() >= 50);
    let far = Key::of_peer(&peer(1));
    assert!(far.distance(target().key()) > region || story.lookup.closest().count() >= 50);
}
