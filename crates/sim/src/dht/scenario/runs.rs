//! What scenarios with records have in common: they start operations one after another, and gather what came of them.

use std::collections::BTreeMap;

use bytes::Bytes;
use peerage_dht::record::Record;
use peerage_dht::{Event, Operation, Options, Target};

use super::super::figures::{Figures, Times};
use super::super::machines::{Ended, Happened, World};
use super::super::policy::{Goal, Kind};
use super::super::queue::{Micros, SECOND};
use super::super::report::Row;
use super::super::stream::Stream;
use super::machines::row_of;

/// A body of the size that the study counts with.
pub(super) const BODY: usize = 200;

/// What has ended, by the operation's number, and what machines said.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) ended: BTreeMap<u64, Ended>,
    /// Stores with their final counts.
    pub(super) settled: BTreeMap<u64, Ended>,
    pub(super) events: Vec<(Micros, u32, Event)>,
}

impl Gathered {
    /// Runs the world until then.
    pub(super) fn run(&mut self, world: &mut World, end: Micros) {
        while let Some(happened) = world.run_until(end) {
            match happened {
                Happened::Ended(one) => drop(self.ended.insert(one.operation, one)),
                Happened::Settled(one) => drop(self.settled.insert(one.operation, one)),
                Happened::Event(node, event) => self.events.push((world.now(), node, event)),
                Happened::Call(_) | Happened::Answered { .. } => {}
            }
        }
    }

    /// What came of an operation, with its final counts where it was a store.
    pub(super) fn of(&self, operation: u64) -> Option<&Ended> {
        self.settled.get(&operation).or_else(|| self.ended.get(&operation))
    }
}

/// A get of a record, and who asked.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) operation: u64,
    /// Which of the records.
    pub(super) which: usize,
}

/// Any node of the network itself that is well and that `bad` does not name.
pub(super) fn honest(world: &World, stream: &mut Stream, bad: impl Fn(u32) -> bool) -> u32 {
    let any = std::iter::repeat_with(|| stream.below(world.setting.nodes) as u32).take(100_000);
    any.into_iter().find(|node| world.nodes[*node as usize].is_well() && !bad(*node)).unwrap_or_default()
}

/// Starts to store a record at so many peers.
pub(super) fn store(world: &mut World, node: u32, record: &Record, replicas: usize) -> u64 {
    let wanted = Operation::Put { target: record.target().clone(), value: record.to_bytes(), replicas };
    world.start(node, wanted, Options::default())
}

/// Starts to get what stands under a target, with the quorum of values that change.
pub(super) fn get(world: &mut World, node: u32, target: &Target) -> u64 {
    world.start(node, Operation::Get { target: target.clone() }, Options::default())
}

/// How strangers ask for records.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking {
    pub(super) count: u64,
    /// From one get to the next.
    pub(super) pause: Micros,
    pub(super) options: Options,
}

impl Asking {
    pub(super) fn new(count: u64, pause: Micros) -> Self {
        Self { count, pause, options: Options::default() }
    }
}

/// Gets of these records by strangers in turn; then all have time to end.
pub(super) fn gets(
    world: &mut World,
    gathered: &mut Gathered,
    stream: &mut Stream,
    targets: &[Target],
    asking: &Asking,
    bad: impl Fn(u32) -> bool,
) -> Vec<Asked> {
    let mut asked = Vec::new();
    for number in 0..asking.count as usize {
        let which = number % targets.len().max(1);
        let Some(target) = targets.get(which) else { break };
        let node = honest(world, stream, &bad);
        let operation = world.start(node, Operation::Get { target: target.clone() }, asking.options);
        asked.push(Asked { operation, which });
        let end = world.now() + asking.pause;
        gathered.run(world, end);
    }
    let end = world.now() + 12 * SECOND;
    gathered.run(world, end);
    asked
}

/// Gets at the end of a run, in a world that is of no use afterwards, as if a connection stood to every contact. The run's hash is that of what came before: it tells runs apart by what their bars are for.
pub(super) fn all_warm<T>(world: &mut World, gets: impl FnOnce(&mut World) -> T) -> T {
    let trace = world.trace;
    world.connect_all();
    let done = gets(world);
    world.trace = trace;
    done
}

/// The rows of gets with all contacts warm, all of whose requests went over connections that count as standing, and with those that nodes have.
pub(super) fn both(case: &'static str, mut warm: Figures, mix: Figures) -> [Row; 2] {
    warm.warm_share = 1.0;
    let row = |reach, figures| Row::new(Kind::Ours, Goal::Value, reach, figures).case(case);
    [row("warm", warm), row("mix", mix)]
}

/// What gets came to: `good` says of a value whether it is the right one.
pub(super) fn figures(gathered: &Gathered, asked: &[Asked], good: impl Fn(usize, &Bytes) -> bool) -> Figures {
    let ended: Vec<Ended> =
        asked.iter().filter_map(|one| gathered.ended.get(&one.operation)).cloned().collect();
    let found = asked
        .iter()
        .filter(|one| {
            let ended = gathered.ended.get(&one.operation);
            ended
                .and_then(|ended| ended.outcome.values.first())
                .is_some_and(|found| good(one.which, &found.value))
        })
        .count();
    let mut figures = row_of(&ended);
    figures.found = found as f64 / asked.len().max(1) as f64;
    figures.times = Times::new(ended.iter().map(|one| one.took).collect());
    figures
}

/// A body that tells one record from another.
pub(super) fn body(number: u64) -> Bytes {
    let mut body = format!("record {number} ").into_bytes();
    body.resize(BODY, b'.');
    body.into()
}

#[cfg(test)]
mod tests {
    use super::super::super::machines::Setting;
    use super::super::super::queue::MILLI;
    use super::super::super::stream::Purpose;
    use super::*;

    #[test]
    fn gets_with_all_contacts_warm_leave_the_hash_of_the_run() {
        let mut world = World::standing(Setting::new(60, 1));
        let mut stream = world.stream(0, Purpose::Queries);
        let mut gathered = Gathered::default();
        let targets = [Target::of_hash(&stream.bytes())];
        let before = world.trace;
        let asked = all_warm(&mut world, |world| {
            gets(world, &mut gathered, &mut stream, &targets, &Asking::new(5, 100 * MILLI), |_| false)
        });
        assert_eq!((world.trace, asked.len()), (before, 5));
        // Each question took a round trip and none a dial: nobody is further away than this.
        assert!(gathered.ended.values().all(|one| one.outcome.counts.asked > 0 && one.took < 2 * SECOND));
    }
}
