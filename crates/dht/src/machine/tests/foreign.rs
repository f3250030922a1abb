//! Holders that speak libp2p alone: they keep what they were sent last, whatever it is, and know nothing of our additions.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use peerage_identity::PeerId;

use super::keeping::{holder, holder_with, network, record};
use super::*;
use crate::numbered::key;
use crate::record::{Draft, Place, Record};
use crate::replication::SetState;

/// What each of them keeps under the one key of the story.
#[derive(Default)]
struct Foreign(BTreeMap<PeerId, Bytes>);

impl Foreign {
    fn answer(&mut self, peer: &PeerId, query: Query) -> Result<Answer, Failure> {
        let values = match query {
            Query::PutValue { value, .. } => {
                self.0.insert(*peer, value.clone());
                vec![value]
            }
            Query::GetValue { .. } => self.0.get(peer).cloned().into_iter().collect(),
            Query::FindNode { .. } | Query::GetProviders { .. } => Vec::new(),
            _ => return Err(Failure::Unsupported),
        };
        Ok(Answer { values, ..Answer::default() })
    }

    /// Answers whatever is asked, until this time.
    fn run(&mut self, story: &mut Story, outputs: Vec<Output>, end: Duration) {
        let mut outputs = VecDeque::from(outputs);
        loop {
            let more = match outputs.pop_front() {
                Some(Output::Ask { request, contact, query, .. }) => {
                    let remote = contact.addresses()[0].socket_addr().unwrap().ip();
                    story.input(match self.answer(contact.peer(), query) {
                        Ok(answer) => Input::Answered { request, rtt: MS(50), remote, answer },
                        Err(why) => Input::Failed { request, why },
                    })
                }
                Some(_) => continue,
                None => match story.dht.poll_timeout().filter(|due| *due <= end) {
                    Some(due) => story.wait(due.saturating_sub(story.now.mono)),
                    None => return,
                },
            };
            outputs.extend(more);
        }
    }
}

/// C-52: what is renewed stays whole at such holders; they are asked for it, counted, and keep their places in the table.
#[test]
fn a_renewal_leaves_the_whole_record_at_foreign_holders_and_their_copies_count() {
    let (mut story, _) = holder();
    for number in 1..=40 {
        story.dht.table.answered(story.now, contact(number).key(), MS(50), false);
    }
    let place = Place::Value { publisher: peer(0), salt: Bytes::from_static(b"colour") };
    let draft = Draft::new(place, 1, 7200, Bytes::from_static(b"blue"));
    let record = Record::sign(&key(0), &network(), draft).unwrap();
    let wanted = Operation::Publish { record: Box::new(record.clone()), renew: Some(S(7200)) };
    let start = Input::Start { operation: OperationId(1), wanted, options: Options::default() };
    let mut foreign = Foreign::default();
    let outputs = story.input(start);
    foreign.run(&mut story, outputs, S(10));
    let copies = foreign.0.len();
    assert!(copies >= 12, "{copies}");
    // Looked at, renewed at a third of its life, and looked at again.
    foreign.run(&mut story, Vec::new(), S(4000));
    let view = story.dht.published().pop().unwrap();
    assert!(view.not_after > 7200 + 2000, "{view:?}");
    assert_eq!((view.state, view.live, foreign.0.len()), (SetState::Healthy, copies, copies));
    for value in foreign.0.values() {
        let kept = Record::open(&network(), value).unwrap();
        assert_eq!((kept.body(), kept.version()), (record.body(), view.record.version()));
    }
    assert!((1..=40).all(|number| story.holds(number)));
    // Who has lost it is none any more, and another copy takes its place.
    let lost = *foreign.0.keys().next().unwrap();
    foreign.0.remove(&lost);
    foreign.run(&mut story, Vec::new(), S(4000 + 1400));
    assert!(story.dht.published().pop().unwrap().holders.iter().all(|holder| *holder.peer() != lost));
}

/// a record that is sent back as an acknowledgement is charged as every other answer is.
#[test]
fn what_was_stored_is_sent_back_to_foreign_peers_alone_and_at_their_expense() {
    let (_, salt) = holder();
    let (target, value) = (record(salt, 1).target().clone(), record(salt, 1).to_bytes());
    let whole = Answer { values: vec![value.clone()], ..Answer::default() }.wire_bytes() as f64;
    let stored = |extended: bool| {
        let (mut story, _) = holder_with(|config| {
            (config.serve.peer_byte_burst, config.serve.peer_bytes_per_second) = (2.5 * whole, 1.0);
        });
        let mut answers = Vec::new();
        loop {
            let put = Query::PutValue { target: target.clone(), value: value.clone() };
            let (answer, _) = story.asked_by(50, extended, put);
            if answer.status == Status::Busy {
                assert!(answer.values.is_empty(), "a refusal is a few bytes");
                return answers;
            }
            assert_eq!(answer.status, Status::Stored);
            answers.push(answer.values);
        }
    };
    assert_eq!(stored(false), vec![vec![value.clone()]; 3]);
    let ours = stored(true);
    assert!(ours.len() > 3 && ours.iter().all(Vec::is_empty), "{}", ours.len());
}
