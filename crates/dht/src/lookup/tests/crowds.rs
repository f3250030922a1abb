//! Subnets of which a lookup comes upon many.

use super::*;

/// So many peers of one subnet, the closest first.
fn crowd(all: &[Contact]) -> Vec<Contact> {
    let within = |(number, contact): (usize, &Contact)| {
        let address = format!("/ip4/20.9.9.{number}/udp/1/quic-v1").parse().unwrap();
        Contact::new(*contact.peer(), &[address])
    };
    all.iter().enumerate().map(within).collect()
}

/// X-26, the other way round: whom a liar names in others' subnets crowds nobody out, wherever it is and whether it is asked; and who was barred is let in again when one of those
/// before it has failed.
#[test]
fn names_in_others_subnets_crowd_nobody_out() {
    let all = peers();
    let within = |contact: &Contact, port: u64| {
        let Some(IpAddr::V4(ip)) = contact.addresses()[0].socket_addr().map(|at| at.ip()) else { panic!() };
        let [a, b, c, _] = ip.octets();
        format!("/ip4/{a}.{b}.{c}.9/udp/{port}/quic-v1").parse::<DialAddress>().unwrap()
    };
    // Six honest peers are the closest but for what the liar says; he is the first to be asked.
    for near in [false, true] {
        let (liar, honest, others) = (all[60].clone(), &all[20..26], &all[26..60]);
        let made_up = if near { &all[..18] } else { &all[100..118] };
        let named: Vec<Contact> = (0..18)
            .map(|number| {
                Contact::new(*made_up[number].peer(), &[within(&honest[number / 3], number as u64 + 1)])
            })
            .collect();
        let mut story = Story::seeded(Goal::Closest, &[liar]);
        let (asked, _) = story.go(at(0));
        let lie = Answer { closer: named.clone(), ..Answer::default() };
        let mut known = |contact: &Contact| Some((contact.clone(), Hint::default()));
        let came =
            Came { request: asked[0].0, rtt: MS(50), remote: met(&story.lookup, asked[0].0), answer: &lie };
        story.lookup.answered(at(50), &Slots, &came, &mut known);
        story.seed(honest);
        story.seed(others);
        let mut now = 50;
        // The made-up ones are silent.
        while story.lookup.ended(at(now)).is_none() {
            now += 10;
            story.go(at(now));
            let pending: Vec<(RequestId, bool)> = story
                .lookup
                .candidates()
                .filter(|candidate| candidate.is_pending())
                .map(|one| (one.request.unwrap(), named.contains(&one.contact)))
                .collect();
            for (request, silent) in pending {
                let answer = Answer::default();
                let came =
                    Came { request, rtt: MS(10), remote: met(&story.lookup, request), answer: &answer };
                if !silent {
                    story.lookup.answered(at(now), &Slots, &came, &mut known);
                }
            }
        }
        let found: Vec<&Contact> = story.lookup.closest().map(|one| &one.contact).collect();
        assert!(honest.iter().all(|one| found.contains(&one)), "near: {near}");
    }
}

/// A small network is in one subnet often: all of it is found, whoever of it stands in the table already and answers first.
#[test]
fn a_network_within_one_subnet_is_found_whole() {
    let all = crowd(&peers()[..10]);
    for known in 0..4 {
        let config = LookupConfig { cold_round_trips: 0.0, ..Default::default() };
        let mut story = Story::new(config, Goal::Closest, |_| {});
        let hint = |number| Hint {
            success: (number % 3 == 1 && number / 3 < known).then_some(0.9),
            ..Hint::default()
        };
        story.lookup.seed(all.iter().cloned().enumerate().map(|(number, one)| (one, hint(number))));
        let (mut now, mut known) = (0, |contact: &Contact| Some((contact.clone(), Hint::default())));
        while story.lookup.ended(at(now)).is_none() {
            now += 10;
            story.go(at(now));
            // Those of the table answer first.
            let pending = story.lookup.candidates().filter(|one| one.is_pending());
            let first = pending.max_by_key(|one| one.hint.success.is_some()).and_then(|one| one.request);
            let Some(request) = first else { continue };
            let answer = Answer { closer: all.clone(), ..Answer::default() };
            let came = Came { request, rtt: MS(10), remote: met(&story.lookup, request), answer: &answer };
            story.lookup.answered(at(now), &Slots, &came, &mut known);
        }
        assert_eq!(story.lookup.closest().count(), 10);
    }
}

/// Whoever names dead peers of one subnet holds a lookup up no longer than with peers of many.
#[test]
fn a_crowd_of_dead_names_in_one_subnet_is_soon_done_with() {
    let all = peers();
    let mut story = Story::seeded(Goal::Closest, &crowd(&all[..20]));
    story.seed(&all[20..60]);
    let dead: Vec<PeerId> = all[..20].iter().map(|one| *one.peer()).collect();
    let (mut now, mut last) = (0, 0);
    while story.lookup.ended(at(now)).is_none() {
        now += 10;
        for (request, contact, _) in story.go(at(now)).0 {
            if dead.contains(contact.peer()) {
                last = now;
                continue;
            }
            let answer = Answer::default();
            let came = Came { request, rtt: MS(10), remote: met(&story.lookup, request), answer: &answer };
            story.lookup.answered(at(now), &Slots, &came, &mut |_| None);
        }
    }
    assert!((1..1_200).contains(&last), "the last of them was asked after {last} ms");
    let found: Vec<&PeerId> = story.lookup.closest().take(20).map(|one| one.contact.peer()).collect();
    assert!(all[20..40].iter().all(|one| found.contains(&one.peer())));
}

/// A get at a place where the k-th peer lies at this multiple of its share of the network: the closest six, whose version is old, answer first. Why it ended and with what.
fn at_a_place(goal: Goal, score: Option<f64>, config: LookupConfig) -> (Ended, u8, Story) {
    const OLD: u8 = 1;
    const NEW: u8 = 2;
    let all = peers();
    let kth = all[19].key().distance(target().key()).share();
    let mut story = Story::new(config, goal, |plan| plan.size = score.map(|score| score / kth));
    story.seed(&all[..40]);
    let (mut now, mut open) = (0, Vec::new());
    let ended = loop {
        now += 1;
        let (asked, next) = story.go(at(now));
        open.extend(asked);
        open.sort_by_key(|(_, contact, _)| std::cmp::Reverse(contact.key().distance(target().key())));
        match (next, open.pop()) {
            (Next::End(ended), _) => break story.lookup.settled(ended),
            (_, Some((request, contact, _))) => {
                let is_old = all[..6].contains(&contact);
                valued(&mut story, at(now), request, if is_old { OLD } else { NEW });
            }
            (Next::Wait(until), None) => now = until.as_millis() as u64,
            (Next::Ask(..), None) => unreachable!("go answers it"),
        }
    };
    let value = story.lookup.harvest.best().map_or(0, |(_, value)| value[0]);
    (ended, value, story)
}

/// Two answers of what may be superseded are one party's, it may be, where more peers stand than an honest network has there: then all of the closest are heard, and the newest is
/// handed over. Who says how many answers are enough is not asked again, nor is who doesn't know the network's size.
#[test]
fn a_get_at_a_crowded_place_hears_out_all_of_the_closest() {
    let with = |crowded| LookupConfig { crowded, ..LookupConfig::default() };
    let (ended, value, mut story) = at_a_place(Goal::Value(0), Some(12.9), LookupConfig::default());
    assert_eq!((ended, value), (Ended::Found, 2));
    assert!(story.lookup.closest().count() >= 20);
    let told = |step: &Step| match step.what {
        StepKind::Crowded { score } => Some(score),
        _ => None,
    };
    let told: Vec<f64> = story.lookup.take_steps().iter().filter_map(told).collect();
    assert!(told.len() == 1 && (told[0] - 12.9).abs() < 1e-6, "{told:?}");
    for (goal, score, config) in [
        (Goal::Value(0), Some(13.1), LookupConfig::default()),
        (Goal::Value(0), Some(12.9), with(12.8)),
        (Goal::Value(0), Some(12.9), with(0.0)),
        (Goal::Value(2), Some(12.9), LookupConfig::default()),
        (Goal::Value(0), None, LookupConfig::default()),
    ] {
        let (ended, value, mut story) = at_a_place(goal.clone(), score, config);
        assert_eq!((ended, value), (Ended::Found, 1), "{goal:?} {score:?}");
        assert!(story.lookup.take_steps().iter().all(|step| !matches!(step.what, StepKind::Crowded { .. })));
    }
    assert_eq!(at_a_place(Goal::Value(0), Some(13.1), with(13.2)).1, 2);
}
