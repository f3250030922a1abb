use std::net::IpAddr;

use peerage_machine::Machine;

use super::*;
use crate::numbered::{address, contact, peer};
use crate::{AcceptAll, Answer, Family, MAX_ANSWER_BYTES, Query, ServeConfig, Status, Target};

mod changes;
mod foreign;
mod invariants;
mod keeping;
mod late;
mod limits;
mod measured;
mod outages;
mod reads;
mod watchers;

const S: fn(u64) -> Duration = Duration::from_secs;
const MS: fn(u64) -> Duration = Duration::from_millis;

fn at(time: Duration) -> Now {
    Now::ZERO.after(time)
}

fn ip(number: u64) -> IpAddr {
    address(number).socket_addr().unwrap().ip()
}

struct Story {
    dht: Dht,
    now: Now,
    queries: u64,
}

impl Story {
    fn new(config: DhtConfig) -> Self {
        let judge = Box::new(AcceptAll);
        let dht = Dht::new(config, peer(0), Mode::Server, judge, Random::from_number(1), at(S(1)));
        Self { dht, now: at(S(1)), queries: 0 }
    }

    /// A node whose table holds the first `count` peers.
    fn among(count: u64) -> Self {
        let mut story = Self::new(DhtConfig::default());
        story.dht.plant(story.now, (1..=count).map(contact));
        story
    }

    fn input(&mut self, input: Input) -> Vec<Output> {
        self.dht.handle(self.now, input);
        self.outputs()
    }

    fn outputs(&mut self) -> Vec<Output> {
        self.dht.check().unwrap();
        std::iter::from_fn(|| self.dht.poll_output()).collect()
    }

    /// Lets time pass, timeout by timeout.
    fn wait(&mut self, time: Duration) -> Vec<Output> {
        let end = self.now.mono + time;
        let mut outputs = Vec::new();
        let mut still = 0;
        while let Some(due) = self.dht.poll_timeout().filter(|due| *due <= end) {
            still = if due > self.now.mono { 0 } else { still + 1 };
            assert!(still < 1000, "time stands still at {:?}", self.now.mono);
            self.now = at(due.max(self.now.mono));
            self.dht.handle_timeout(self.now);
            self.dht.check_at(self.now).unwrap();
            outputs.extend(self.outputs());
        }
        self.now = at(end);
        outputs
    }

    fn asked(&mut self, from: u64, ask: Query) -> (Answer, Vec<Output>) {
        self.asked_by(from, true, ask)
    }

    /// The same, by a peer that does or does not understand our additions.
    fn asked_by(&mut self, from: u64, extended: bool, ask: Query) -> (Answer, Vec<Output>) {
        self.queries += 1;
        let query = QueryId(self.queries);
        let outputs = self.input(Input::Asked { query, from: peer(from), remote: ip(from), ask, extended });
        let reply = outputs.iter().find_map(|output| match output {
            Output::Reply { query: of, answer } if *of == query => Some(answer.clone()),
            _ => None,
        });
        (reply.expect("every query is answered"), outputs)
    }

    fn answer(&mut self, request: RequestId, remote: IpAddr, closer: &[Contact]) -> Vec<Output> {
        let answer = Answer { closer: closer.to_vec(), extended: true, ..Answer::default() };
        self.input(Input::Answered { request, rtt: MS(50), remote, answer })
    }

    fn connect(&mut self, number: u64) -> Vec<Output> {
        let mut outputs =
            self.input(Input::Connected { contact: contact(number), remote: ip(number), rtt: None });
        outputs.extend(self.input(Input::Supports { peer: peer(number), serves: true }));
        outputs
    }

    fn holds(&self, number: u64) -> bool {
        self.dht.table().peers().any(|(known, _)| known == &contact(number))
    }
}

fn asks(outputs: &[Output]) -> Vec<(RequestId, Contact, Query)> {
    let ask = |output: &Output| match output {
        Output::Ask { request, contact, query, .. } => Some((*request, contact.clone(), query.clone())),
        _ => None,
    };
    outputs.iter().filter_map(ask).collect()
}

fn find(name: &str) -> Query {
    Query::FindNode { target: Target::new(name.as_bytes()).unwrap() }
}

/// AL-13, X-21: whoever asks us is entered nowhere for it; whoever answers us from an address of its own is.
#[test]
fn only_an_answer_from_an_advertised_address_makes_an_entry() {
    let mut story = Story::new(DhtConfig::default());
    story.asked(5, find("x"));
    assert!(story.dht.table().is_empty());
    let probes = asks(&story.connect(5));
    assert!(!probes.is_empty() && !story.holds(5), "asked, not yet believed");
    story.answer(probes[0].0, ip(77), &[]);
    assert!(!story.holds(5), "it is not where it says");
    let mut story = Story::new(DhtConfig::default());
    let probes = asks(&story.connect(5));
    story.answer(probes[0].0, ip(5), &[]);
    assert!(story.holds(5));
}

/// An answer that names a peer twice is no correct one.
#[test]
fn a_nonsensical_answer_makes_no_entry() {
    let mut story = Story::new(DhtConfig::default());
    let probes = asks(&story.connect(5));
    story.answer(probes[0].0, ip(5), &[contact(8), contact(8)]);
    assert!(!story.holds(5));
}

/// dht.md B.8: who stops to advertise the protocol leaves the table, and so does who turns out not to speak it.
#[test]
fn who_does_not_serve_is_in_no_table() {
    let mut story = Story::among(30);
    story.connect(3);
    story.input(Input::Supports { peer: peer(3), serves: false });
    assert!(!story.holds(3));
    let request = story.dht.ask(story.now, &contact(4), find("x"), Class::Normal, requests::Purpose::Probe);
    story.outputs();
    story.input(Input::Failed { request, why: Failure::Unsupported });
    assert!(!story.holds(4));
}

#[test]
fn a_fault_of_our_own_is_nobodys() {
    let mut story = Story::among(30);
    for _ in 0..5 {
        let request =
            story.dht.ask(story.now, &contact(4), find("x"), Class::Normal, requests::Purpose::Probe);
        story.input(Input::Failed { request, why: Failure::Local });
    }
    assert_eq!(story.dht.table().usable(), 30);
    for _ in 0..2 {
        let request =
            story.dht.ask(story.now, &contact(4), find("x"), Class::Normal, requests::Purpose::Probe);
        story.input(Input::Failed { request, why: Failure::Unreachable });
    }
    assert_eq!(story.dht.table().usable(), 29);
}

#[test]
fn a_request_is_given_up_after_five_seconds() {
    let mut story = Story::among(30);
    let request = story.dht.ask(story.now, &contact(4), find("x"), Class::Normal, requests::Purpose::Probe);
    story.outputs();
    let cancelled = |outputs: &[Output]| {
        outputs.iter().any(|output| matches!(output, Output::CancelAsk { request: of, .. } if *of == request))
    };
    assert!(!cancelled(&story.wait(MS(4999))));
    assert!(cancelled(&story.wait(MS(1))));
    assert_eq!(story.dht.standing(story.now).stats.failed, 1);
}

/// AL w5: who times out has failed once, whoever else says so.
#[test]
fn a_request_that_was_given_up_and_is_reported_too_is_one_miss() {
    let mut story = Story::among(30);
    let request = story.dht.ask(story.now, &contact(4), find("x"), Class::Normal, requests::Purpose::Probe);
    story.outputs();
    story.wait(S(5));
    story.input(Input::Failed { request, why: Failure::Timeout });
    let health = story.dht.table().peers().find(|(known, _)| *known == &contact(4)).unwrap().1;
    assert_eq!((health, story.dht.standing(story.now).stats.failed), (crate::Health::Suspect, 1));
}

/// AL-17, AL-19: many failures at once are our own outage: nobody is blamed, both is said, and the end pardons all.
#[test]
fn an_outage_is_told_and_blames_nobody() {
    let mut story = Story::among(200);
    story.now = at(S(100));
    let mut events = Vec::new();
    let mut told = |outputs: Vec<Output>| {
        events.extend(outputs.into_iter().filter_map(|output| match output {
            Output::Event(event) => Some(event),
            _ => None,
        }));
    };
    for number in (1..=200).filter(|number| story.holds(*number)).collect::<Vec<_>>() {
        for _ in 0..3 {
            let now = story.now;
            let request =
                story.dht.ask(now, &contact(number), find("x"), Class::Normal, requests::Purpose::Probe);
            told(story.input(Input::Failed { request, why: Failure::Timeout }));
        }
    }
    assert!(story.dht.standing(story.now).outage);
    let lost = story.dht.table().len() - story.dht.table().usable();
    assert!(lost <= 4, "{lost} were blamed before the outage was suspected");
    for number in 1..=40 {
        let now = story.now;
        let request =
            story.dht.ask(now, &contact(number), find("x"), Class::Normal, requests::Purpose::Probe);
        told(story.answer(request, ip(number), &[]));
    }
    assert!(!story.dht.standing(story.now).outage);
    assert_eq!(story.dht.table().usable(), story.dht.table().len());
    for expected in [None, Some(Family::V4)] {
        assert!(events.contains(&Event::OutageSuspected { family: expected }));
        assert!(events.contains(&Event::OutageOver { family: expected }));
    }
}

/// AL-19: that those fail whom an answer names is no outage of ours, however many they are, and who is silent meanwhile is blamed.
#[test]
fn a_liar_brings_no_outage_about() {
    let mut story = Story::among(60);
    let wanted = Operation::Closest { target: Target::new(b"x").unwrap() };
    let mut outputs =
        story.input(Input::Start { operation: OperationId(1), wanted, options: Options::default() });
    let (liar, _, _) = asks(&outputs)[0].clone();
    let dead: Vec<Contact> = (1000..1020).map(contact).collect();
    let mut silent = None;
    for _ in 0..200 {
        let mut more = Vec::new();
        for (request, contact, _) in asks(&outputs) {
            let remote = contact.addresses()[0].socket_addr().unwrap().ip();
            if request == liar {
                more.extend(story.answer(request, remote, &dead));
            } else if story.dht.table().get(contact.key()).is_some()
                && silent.get_or_insert(contact.clone()) != &contact
            {
                more.extend(story.answer(request, remote, &[]));
            }
        }
        more.extend(story.wait(MS(100)));
        outputs = more;
        let suspected = |output: &Output| matches!(output, Output::Event(Event::OutageSuspected { .. }));
        assert!(!outputs.iter().any(suspected));
    }
    assert!(story.dht.standing(story.now).stats.asked > 40, "the dead were asked, too");
    let silent = silent.unwrap();
    let probe = story.dht.ask(story.now, &silent, find("x"), Class::Normal, requests::Purpose::Probe);
    story.input(Input::Failed { request: probe, why: Failure::Timeout });
    assert!(!story.dht.table().get(silent.key()).unwrap().is_usable());
}

#[test]
fn a_new_network_pardons_everybody() {
    let mut story = Story::among(30);
    for number in 1..=3 {
        for _ in 0..2 {
            let now = story.now;
            let request =
                story.dht.ask(now, &contact(number), find("x"), Class::Normal, requests::Purpose::Probe);
            story.input(Input::Failed { request, why: Failure::Timeout });
        }
    }
    assert!(story.dht.table().usable() < 30);
    story.input(Input::NetworkChanged);
    assert_eq!(story.dht.table().usable(), 30);
}

/// AL-07: an answer is below 16 KiB whatever the addresses, the farthest peers are dropped first, and the asker is not among them.
#[test]
fn answers_stay_below_16_kib() {
    let mut story = Story::new(DhtConfig::default());
    let long: Vec<Contact> = (1..200)
        .map(|number| {
            let name = format!("{number}.{}example", "long-label-of-a-name.".repeat(10));
            let names = (1..9).map(|port| format!("/dns4/{name}/udp/{port}/quic-v1").parse().unwrap());
            Contact::new(peer(number), &names.collect::<Vec<_>>())
        })
        .collect();
    story.dht.plant(story.now, long);
    let target = Target::of_peer(&peer(7));
    let (answer, _) = story.asked(7, Query::FindNode { target: target.clone() });
    assert!(answer.wire_bytes() < MAX_ANSWER_BYTES, "{}", answer.wire_bytes());
    assert!(answer.closer.len() >= 3 && answer.closer.len() < 20, "{}", answer.closer.len());
    assert!(answer.closer.is_sorted_by_key(|contact| contact.key().distance(target.key())));
    assert!(answer.closer.iter().all(|contact| contact.peer() != &peer(7)));
    assert!(answer.extended);
}

#[test]
fn one_peer_may_ask_so_much_and_all_together_so_much() {
    let mut config = DhtConfig::default();
    config.serve = ServeConfig { peer_burst: 5.0, peer_per_second: 1.0, node_burst: 12.0, ..config.serve };
    config.serve.node_per_second = 1.0;
    let mut story = Story::new(config);
    let ok = |story: &mut Story, from| story.asked(from, Query::Ping).0.status == Status::Ok;
    assert_eq!((0..20).filter(|_| ok(&mut story, 1)).count(), 5);
    assert_eq!((0..20).filter(|_| ok(&mut story, 2)).count(), 5);
    assert_eq!((0..20).filter(|_| ok(&mut story, 3)).count(), 2, "the node has had enough");
    assert_eq!(story.asked(4, Query::Ping).0.status, Status::Busy);
    story.wait(S(3));
    assert_eq!((0..20).filter(|_| ok(&mut story, 1)).count(), 3);
}

#[test]
fn bytes_of_answers_are_limited_for_a_peer_and_for_the_node() {
    let mut config = DhtConfig::default();
    config.serve.peer_byte_burst = 5000.0;
    config.serve.peer_bytes_per_second = 100.0;
    config.serve.node_byte_burst = 9000.0;
    config.serve.node_bytes_per_second = 100.0;
    let mut story = Story::new(config);
    story.dht.plant(story.now, (1..100).map(contact));
    let served = |story: &mut Story, from| {
        (0..50).map(|_| story.asked(from, find("x")).0).filter(|answer| answer.status == Status::Ok).count()
    };
    let first = served(&mut story, 1);
    assert!((2..=6).contains(&first), "{first}");
    let all = first + served(&mut story, 2) + served(&mut story, 3);
    assert!((first + 1..=11).contains(&all), "{all}");
}

#[test]
fn the_peers_whose_queries_are_counted_are_bounded() {
    let mut config = DhtConfig::default();
    config.serve.tracked_peers = 10;
    let mut story = Story::new(config);
    let served = (1..100).filter(|from| story.asked(*from, Query::Ping).0.status == Status::Ok).count();
    assert_eq!((served, story.dht.standing(story.now).tracked), (10, 10));
    story.wait(S(10));
    assert_eq!(
        story.asked(200, Query::Ping).0.status,
        Status::Ok,
        "those who asked nothing since are forgotten"
    );
}

/// dht.md B.1, "Down-hint": who is said to be silent is looked at, never removed on hearsay, and within the budget of probes.
#[test]
fn a_hint_makes_us_look_and_nothing_else() {
    let mut story = Story::among(100);
    story.now = at(S(60));
    let named: Vec<PeerId> = story.dht.table().peers().map(|(known, _)| *known.peer()).collect();
    let before = story.dht.table().len();
    for chunk in named.chunks(40) {
        story.asked(7, Query::Silent { peers: chunk.to_vec() });
    }
    assert_eq!(story.dht.table().len(), before);
    let probes = asks(&story.wait(S(3))).len();
    assert!((1..=48).contains(&probes), "{probes}: sixteen of each hint, within the budget");
}

#[test]
fn probes_keep_within_their_bytes() {
    let mut story = Story::among(2000);
    let entries = story.dht.table().len();
    let mut probes = 0;
    for _ in 0..120 {
        let outputs = story.wait(S(60));
        for (request, contact, query) in asks(&outputs) {
            probes += usize::from(matches!(query, Query::Ping));
            let remote = contact.addresses()[0].socket_addr().unwrap().ip();
            story.answer(request, remote, &[]);
        }
    }
    let bytes = probes as f64 * 120.0;
    assert!(
        bytes <= 50.0 * (7200.0 + 600.0),
        "{bytes} bytes in two hours, and what was saved, for {entries} entries"
    );
    assert!(probes > entries, "in two hours everybody who is quiet is looked at");
}

/// What probes did not cost for ten minutes pays for a look at everybody, and no more; and so many are under way at once.
#[test]
fn probes_save_up_so_much_and_so_many_are_under_way() {
    let mut story = Story::among(2000);
    let (at_once, entries) = (story.dht.config.upkeep.probes_at_once, story.dht.table().len());
    story.now = at(S(100_000));
    let mut probes = 0;
    for _ in 0..120 {
        let outputs = story.wait(S(1));
        let pings: Vec<_> = asks(&outputs).into_iter().filter(|ask| matches!(ask.2, Query::Ping)).collect();
        assert!(pings.len() <= at_once, "{} at once", pings.len());
        probes += pings.len();
        for (request, contact, _) in pings {
            let remote = contact.addresses()[0].socket_addr().unwrap().ip();
            story.answer(request, remote, &[]);
        }
    }
    assert!(probes >= entries, "{probes} of {entries} looked at within two minutes");
    assert!(probes as f64 * 120.0 <= 50.0 * (600.0 + 120.0), "{probes}");
}

/// dht.md B.6: after joining the size is measured often, then less often, and seldom once it is known.
#[test]
fn the_size_is_measured_often_until_it_is_known() {
    let mut story = Story::among(100);
    story.dht.upkeep.early = story.dht.config.upkeep.early_refreshes;
    let lookups = |story: &mut Story, time: u64| {
        let outputs = story.wait(S(10 * time));
        let target = |(.., query): (RequestId, Contact, Query)| match query {
            Query::FindNode { target } => Some(target),
            _ => None,
        };
        let mut targets: Vec<Target> = asks(&outputs).into_iter().filter_map(target).collect();
        targets.sort_by_key(|target| *target.key());
        targets.dedup();
        // Nobody answers here: the node looks itself up again and again, too.
        targets.iter().filter(|target| *target.key() != *story.dht.key()).count()
    };
    let first = lookups(&mut story, 180);
    let settling = lookups(&mut story, 180);
    story.dht.plant_size(story.now, 100.0, 30);
    lookups(&mut story, 180);
    let settled = lookups(&mut story, 360);
    assert!(
        first >= 12 && (4..=14).contains(&settling) && (2..=8).contains(&settled),
        "{first} {settling} {settled}"
    );
}

/// Has sixty peers answer; all of them have named somebody who is silent now.
fn sixty_advisors(story: &mut Story) -> Vec<(Contact, Contact)> {
    for number in 1..=60 {
        let now = story.now;
        let request =
            story.dht.ask(now, &contact(number), find("x"), Class::Normal, requests::Purpose::Probe);
        story.answer(request, ip(number), &[]);
    }
    (1..=60).map(|number| (contact(500), contact(number))).collect()
}

#[test]
fn hints_are_sent_within_their_rate() {
    let mut story = Story::among(60);
    let silent = sixty_advisors(&mut story);
    story.dht.hint(story.now, &silent);
    let sent = asks(&story.outputs());
    assert_eq!(sent.len(), 8);
    assert!(sent.iter().all(|(.., query)| matches!(query, Query::Silent { peers } if peers.len() == 1)));
}

/// Contract C-53.
#[test]
fn operations_under_way_are_bounded_and_each_ends_once() {
    let mut config = DhtConfig::default();
    config.lookup.max_operations = 10;
    // Nobody answers here, and probes would go on for ever.
    config.upkeep.probes_at_once = 0;
    let mut story = Story::new(config);
    story.dht.plant(story.now, (1..100).map(contact));
    let (mut begun, mut done) = (0, 0);
    for number in 0..30u64 {
        let wanted = Operation::Closest { target: Target::new(&number.to_be_bytes()).unwrap() };
        let operation = OperationId(number);
        let outputs = story.input(Input::Start { operation, wanted, options: Options::default() });
        match outputs.iter().find(|output| matches!(output, Output::Done { .. })) {
            Some(Output::Done { outcome, .. }) => {
                assert_eq!(outcome.ended, Ended::TooMany);
                done += 1;
            }
            _ => begun += 1,
        }
    }
    assert_eq!((begun, done), (10, 20));
    let ended = story.wait(S(40)).iter().filter(|output| matches!(output, Output::Done { .. })).count();
    assert_eq!(ended, 10);
    assert_eq!(story.dht.standing(story.now).requests, 0);
}

#[test]
fn contacts_to_begin_with_are_bounded_and_the_newest_stay() {
    let mut story = Story::new(DhtConfig::default());
    let contacts: Vec<Contact> = (1..500).map(contact).collect();
    story.input(Input::Known { contacts, source: Source::Book });
    assert_eq!(story.dht.upkeep.known().len(), 64);
    assert!(story.dht.upkeep.known().contains(&contact(499)));
}

/// Of those whom a node knew before its start most may be gone, or serve nobody: who looks something up doesn't wait for them, while upkeep tries them, and who is alone.
#[test]
fn who_looks_something_up_in_a_small_network_does_not_wait_for_all_who_were_ever_known() {
    let asked_by = |story: &mut Story, aim: operation::Aim| {
        let target = Target::new(b"x").unwrap();
        let lookup = story.dht.lookup_for(
            story.now,
            aim,
            target,
            crate::lookup::Goal::Closest,
            false,
            Options::default(),
        );
        lookup.candidates().count()
    };
    let mut story = Story::among(3);
    let contacts = (10..20).map(contact).collect();
    story.input(Input::Known { contacts, source: Source::Book });
    assert_eq!(asked_by(&mut story, operation::Aim::Caller(OperationId(1))), 3);
    assert_eq!(
        [operation::Aim::Refresh, operation::Aim::Neighbours].map(|aim| asked_by(&mut story, aim)),
        [13, 13]
    );
    (1..=3).for_each(|number| story.dht.table.remove(contact(number).key()));
    assert_eq!(asked_by(&mut story, operation::Aim::Caller(OperationId(2))), 10, "there is nobody else");
}

/// what an answer says of a peer whom we know changes nothing, and addresses of networks that its giver is no part of are not believed.
#[test]
fn hearsay_neither_replaces_addresses_nor_points_into_our_network() {
    let mut story = Story::among(10);
    let wanted = Operation::Closest { target: Target::of_peer(&peer(3)) };
    let started =
        story.input(Input::Start { operation: OperationId(1), wanted, options: Options::default() });
    let first = asks(&started)[0].clone();
    let lie = Contact::new(peer(3), &[address(666)]);
    let inside = Contact::new(peer(700), &["/ip4/192.168.0.1/udp/1/quic-v1".parse().unwrap()]);
    let remote = first.1.addresses()[0].socket_addr().unwrap().ip();
    let mut more = asks(&story.answer(first.0, remote, &[lie.clone(), inside]));
    more.extend(asks(&story.wait(S(12))));
    assert!(more.iter().all(|(_, contact, _)| contact != &lie && contact.peer() != &peer(700)));
    assert!(story.holds(3));
}

/// Late answers are used: the peer that was given up is alive after all.
#[test]
fn an_answer_after_the_end_still_counts_for_its_peer() {
    let mut story = Story::among(40);
    let wanted = Operation::Closest { target: Target::new(b"x").unwrap() };
    let started =
        story.input(Input::Start { operation: OperationId(1), wanted, options: Options::default() });
    let (request, contact, _) = asks(&started)[0].clone();
    story.input(Input::Cancel { operation: OperationId(1) });
    let remote = contact.addresses()[0].socket_addr().unwrap().ip();
    story.answer(request, remote, &[]);
    let stats = story.dht.standing(story.now).stats;
    assert_eq!((stats.late, stats.answered), (1, 0));
    assert!(story.dht.table().get(contact.key()).unwrap().rtt.is_known());
    for number in 0..1000 {
        story.answer(RequestId(number), remote, &[]);
    }
    assert_eq!(
        story.dht.standing(story.now).stats.late,
        4,
        "the four of the burst, each once; others were never asked"
    );
}

/// what a connected peer says of itself is a stranger's word: it makes us dial nobody in our own networks.
#[test]
fn a_connected_peer_names_no_address_of_our_own_network() {
    let mut story = Story::new(DhtConfig::default());
    let private: peerage_identity::DialAddress = "/ip4/192.168.1.1/udp/443/quic-v1".parse().unwrap();
    let local = "/ip4/127.0.0.1/udp/53/quic-v1".parse().unwrap();
    let claims = Contact::new(peer(5), &[address(5), private.clone(), local]);
    story.input(Input::Connected { contact: claims, remote: ip(5), rtt: None });
    let asked = asks(&story.input(Input::Supports { peer: peer(5), serves: true }));
    assert_eq!(asked[0].1.addresses(), [address(5)]);
    let near = Contact::new(peer(6), std::slice::from_ref(&private));
    story.input(Input::Connected { contact: near, remote: "192.168.1.9".parse().unwrap(), rtt: None });
    let asked = asks(&story.input(Input::Supports { peer: peer(6), serves: true }));
    assert_eq!(asked[0].1.addresses(), [private], "in that network it is credible");
}
