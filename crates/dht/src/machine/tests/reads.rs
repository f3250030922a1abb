//! what was read once is never read older.

use super::keeping::{holder_with, record, record_until};
use super::*;
use crate::record::Record;

/// A read, to which everybody who is asked answers with the version of this number, or with nothing. Which number it ends with, and whether somebody else said so.
fn read(story: &mut Story, salt: u32, there: Option<u64>) -> Option<(u64, bool)> {
    read_of(story, |seq| record(salt, seq), there)
}

/// The same, of versions that are made so.
fn read_of(story: &mut Story, record: impl Fn(u64) -> Record, there: Option<u64>) -> Option<(u64, bool)> {
    let id = OperationId(story.queries + 1000);
    story.queries += 1;
    let wanted = Operation::Get { target: record(1).target().clone() };
    let mut outputs = story.input(Input::Start { operation: id, wanted, options: Options::default() });
    let mut next = 0;
    loop {
        while let Some(output) = outputs.get(next).cloned() {
            next += 1;
            match output {
                Output::Done { operation, outcome } if operation == id => {
                    assert_eq!(outcome.values.len() + usize::from(outcome.values.is_empty()), 1);
                    let found = outcome.values.first()?;
                    let number = (1..20).find(|seq| record(*seq).to_bytes() == found.value).unwrap();
                    return Some((number, found.from != *story.dht.peer()));
                }
                // Who answers after the end would be kept here too (AL-31).
                Output::Ask { request, contact, .. } if !cancelled(&outputs, request) => {
                    let remote = contact.addresses()[0].socket_addr().unwrap().ip();
                    let values = there.map(|seq| record(seq).to_bytes()).into_iter().collect();
                    let answer = Answer { values, extended: true, ..Answer::default() };
                    outputs.extend(story.input(Input::Answered { request, rtt: MS(50), remote, answer }));
                }
                _ => {}
            }
        }
        outputs.extend(story.wait(MS(10)));
    }
}

fn cancelled(outputs: &[Output], request: RequestId) -> bool {
    outputs.iter().any(|output| matches!(output, Output::CancelAsk { request: of, .. } if *of == request))
}

fn reader(change: impl FnOnce(&mut DhtConfig)) -> Story {
    let (mut story, _) = holder_with(|limits| {
        limits.upkeep.probes_at_once = 0;
        change(limits);
    });
    story.dht.upkeep.early = 0;
    story
}

/// whoever answers, a read gives back nothing older than an earlier read did; what is newer it does.
#[test]
fn a_read_never_gives_back_less_than_an_earlier_one() {
    let mut story = reader(|_| {});
    let numbers = [Some(3), Some(2), Some(3), Some(5), Some(4), Some(1)];
    let read = numbers.map(|there| read(&mut story, 1, there));
    let others = |number| Some((number, true));
    assert_eq!(read, [others(3), Some((3, false)), others(3), others(5), Some((5, false)), Some((5, false))]);
}

/// It is no cache: what nobody has any more is not found.
#[test]
fn what_was_read_and_is_gone_is_not_given_back() {
    let mut story = reader(|_| {});
    assert_eq!(read(&mut story, 1, Some(3)), Some((3, true)));
    assert_eq!(read(&mut story, 1, None), None);
    assert_eq!(read(&mut story, 1, Some(2)), Some((3, false)));
}

/// when a version has expired, the one before it does not come back.
#[test]
fn what_was_read_and_has_expired_is_not_followed_by_something_older() {
    let mut story = reader(|_| {});
    // Version 3 lasts for an hour, the others for much longer.
    let version = |seq| record_until(1, seq, if seq == 3 { 3_600 } else { 40 * 3_600 });
    assert_eq!(read_of(&mut story, version, Some(2)), Some((2, true)));
    assert_eq!(read_of(&mut story, version, Some(3)), Some((3, true)));
    story.wait(S(2 * 3600));
    assert_eq!(read_of(&mut story, version, Some(2)), None);
    assert_eq!(read_of(&mut story, version, Some(4)), Some((4, true)));
}

/// so many reads are remembered, and so many bytes; what was read longest ago is forgotten first.
#[test]
fn so_many_reads_and_bytes_are_remembered() {
    let rank = record(1, 3).version().to_bytes().len();
    let length = record(1, 3).to_bytes().len() + rank;
    let remembers = |reads, bytes| {
        let mut story = reader(|limits| {
            limits.lookup.remembered_reads = reads;
            limits.lookup.remembered_read_bytes = bytes;
        });
        (1..=4).for_each(|salt| assert_eq!(read(&mut story, salt, Some(3)), Some((3, true))));
        // The first is read once more, so that the second is the one that was read longest ago.
        read(&mut story, 1, Some(3));
        [3, 4, 1, 2].map(|salt| read(&mut story, salt, Some(2)) == Some((3, false)))
    };
    assert_eq!(remembers(4, 1 << 20), [true; 4]);
    assert_eq!(remembers(3, 1 << 20), [true, true, true, false]);
    assert_eq!(remembers(100, 3 * length), [true, true, true, false]);
    assert_eq!(remembers(100, 4 * length), [true; 4]);
    assert_eq!(remembers(0, 1 << 20), [false; 4]);
    assert_eq!(remembers(100, length - 1), [false; 4]);
}
