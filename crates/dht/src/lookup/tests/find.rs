//! Looking for a peer: whose word ends it, and what a lie does.

use super::*;
use crate::MAX_CONTACT_ADDRESSES;

const WANTED: u64 = 399;

fn there(addresses: &[u64]) -> Contact {
    let addresses: Vec<DialAddress> = addresses.iter().map(|number| address(*number)).collect();
    Contact::new(peer(WANTED), &addresses)
}

/// A lookup that has asked four peers, and those requests.
fn looking(tellers: usize, seeds: &[Contact]) -> (Story, Vec<RequestId>) {
    let mut story = Story::new(LookupConfig::default(), Goal::Peer(peer(WANTED), tellers), |plan| {
        plan.target = Target::of_peer(&peer(WANTED));
    });
    story.seed(seeds);
    let (asked, _) = story.go(at(0));
    assert_eq!(asked.len(), 4);
    (story, asked.into_iter().map(|(request, ..)| request).collect())
}

fn strangers() -> Vec<Contact> {
    (1..20).map(contact).collect()
}

#[test]
fn a_peer_is_found_when_two_networks_name_one_address_of_it() {
    let (mut story, asked) = looking(0, &strangers());
    story.answer(at(10), asked[0], &[there(&[1000, 1001])]);
    assert!(matches!(story.go(at(10)).1, Next::Wait(_)));
    // They agree on nothing.
    story.answer(at(20), asked[1], &[there(&[1002])]);
    assert!(matches!(story.go(at(20)).1, Next::Wait(_)));
    story.answer(at(30), asked[2], &[there(&[1003, 1001])]);
    assert_eq!(story.go(at(30)).1, Next::End(Ended::Found));
    assert_eq!(story.lookup.whereabouts.best().unwrap().addresses()[0], address(1001));
    assert_eq!(story.lookup.hops, 1);
}

#[test]
fn with_a_quorum_of_one_the_first_word_is_enough() {
    let (mut story, asked) = looking(1, &strangers());
    story.answer(at(10), asked[0], &[there(&[1000])]);
    assert_eq!(story.go(at(10)).1, Next::End(Ended::Found));
    assert_eq!(story.lookup.whereabouts.best(), Some(there(&[1000])));
}

#[test]
fn many_of_one_network_are_one_word() {
    let neighbour = |number: u64| {
        let address = format!("/ip4/99.1.1.{number}/udp/4001/quic-v1").parse().unwrap();
        Contact::new(peer(number), &[address])
    };
    let seeds: Vec<Contact> = (1..5).map(neighbour).collect();
    let mut story = Story::new(LookupConfig::default(), Goal::Peer(peer(WANTED), 0), |plan| {
        plan.target = Target::of_peer(&peer(WANTED));
    });
    story.seed(&seeds);
    let (ended, _) = story.finish(at(0), &|asked| match *asked.peer() == peer(WANTED) {
        true => vec![],
        false => vec![there(&[1000])],
    });
    // The peer itself was asked there, and answered.
    assert_eq!(ended, Ended::Found);
    let mut story = Story::new(LookupConfig::default(), Goal::Peer(peer(WANTED), 0), |plan| {
        plan.target = Target::of_peer(&peer(WANTED));
    });
    story.seed(&seeds);
    let mut now = at(0);
    let ended = loop {
        let (asked, next) = story.go(now);
        for (request, who, _) in asked {
            match *who.peer() == peer(WANTED) {
                true => drop(story.lookup.failed(now, request, Failure::Unreachable)),
                false => drop(story.answer(now, request, &[there(&[1000])])),
            }
        }
        match next {
            Next::End(ended) => break ended,
            Next::Wait(until) => {
                now = Now { mono: until.max(now.mono + MS(1)).min(now.mono + MS(500)), ..now }
            }
            Next::Ask(..) => unreachable!("go asks"),
        }
    };
    // Nobody else is left, and what they say is told for what it is worth.
    assert_eq!(ended, Ended::Complete);
    assert_eq!(story.lookup.whereabouts.best(), Some(there(&[1000])));
}

#[test]
fn whoever_is_said_to_be_elsewhere_is_asked_where_an_honest_peer_names_it() {
    let (mut story, asked) = looking(0, &strangers());
    story.answer(at(10), asked[0], &[there(&[6666])]);
    let (next, _) = story.go(at(10));
    let (lie, who, _) = next.into_iter().find(|(_, who, _)| *who.peer() == peer(WANTED)).unwrap();
    assert_eq!(who, there(&[6666]));
    // The truth comes while it is being asked at the wrong place, or after that.
    for truth_first in [true, false] {
        let (mut story, asked) = looking(0, &strangers());
        story.answer(at(10), asked[0], &[there(&[6666])]);
        story.go(at(10));
        if truth_first {
            story.answer(at(20), asked[1], &[there(&[1000])]);
            story.lookup.failed(at(30), lie, Failure::Unreachable);
        } else {
            story.lookup.failed(at(20), lie, Failure::Unreachable);
            story.answer(at(30), asked[1], &[there(&[1000])]);
        }
        let (again, _) = story.go(at(30));
        let (truth, who, _) = again.into_iter().find(|(_, who, _)| *who.peer() == peer(WANTED)).unwrap();
        assert!(who.addresses().contains(&address(1000)), "{who:?}");
        let came = Came {
            request: truth,
            rtt: MS(50),
            remote: address(1000).socket_addr().unwrap().ip(),
            answer: &Answer::default(),
        };
        let mut known = |named: &Contact| Some((named.clone(), Hint::default()));
        story.lookup.answered(at(80), &AcceptAll, &came, &mut known).unwrap();
        assert_eq!(story.go(at(80)).1, Next::End(Ended::Found));
        assert_eq!(story.lookup.whereabouts.best().unwrap().addresses()[0], address(1000));
    }
}

/// D.3-3: what leaves it where it was asked already is no second chance, however many such words come.
#[test]
fn whoever_did_not_answer_is_not_asked_again_at_the_same_addresses() {
    let many: Vec<u64> = (1000..1000 + MAX_CONTACT_ADDRESSES as u64).collect();
    let (mut story, asked) = looking(3, &strangers());
    story.answer(at(10), asked[0], &[there(&many)]);
    story.answer(at(10), asked[1], &[there(&many)]);
    let wanted = |story: &mut Story, now| {
        let (asked, _) = story.go(now);
        asked.into_iter().find(|(_, who, _)| *who.peer() == peer(WANTED))
    };
    let (request, who, _) = wanted(&mut story, at(10)).unwrap();
    assert_eq!(who.addresses().len(), many.len());
    story.lookup.failed(at(20), request, Failure::Unreachable);
    // One address more, which one network names, finds no place beside those that two do.
    story.answer(at(30), asked[2], &[there(&[2000])]);
    assert!(wanted(&mut story, at(30)).is_none());
    // Two do by now, and there is news.
    story.answer(at(40), asked[3], &[there(&[2000, 3000])]);
    let (_, who, _) = wanted(&mut story, at(40)).unwrap();
    assert!(who.addresses().contains(&address(2000)), "{who:?}");
}
