//! Scenario 25: all nodes restart within two minutes, each with what its disk holds.

use bytes::Bytes;
use peerage_dht::Target;
use peerage_dht::record::Record;

use super::super::figures::Figures;
use super::super::machines::World;
use super::super::queue::{MILLI, Micros, SECOND};
use super::super::report::{Measure, Report};
use super::super::stream::{Purpose, Stream};
use super::Settings;
use super::attacks::{LIFE, REPLICAS, with_records};
use super::machines::{HOUR, MINUTE, report};
use super::runs::{Asking, Gathered, all_warm, body, both, figures, gets, honest, store};

/// Records that are stored before.
const RECORDS: u32 = 200;
/// Before the storm the network stands for so long, so that what is steady has come to rest; `--seconds` shortens it.
const REST: Micros = HOUR;
/// What is steady is measured over the end of that.
const STEADY: Micros = 10 * MINUTE;
/// Within this time all restart.
const STORM: Micros = 2 * MINUTE;
/// After the last restart it is asked what is found.
const LATER: Micros = 3 * MINUTE;
/// The peak is that of so long a time.
const GRAIN: Micros = 10 * SECOND;

/// What a node sent on the mean, in bytes a second.
#[derive(Debug, Clone, Copy, Default)]
struct Sent {
    /// What machines do by themselves, but for joining.
    upkeep: f64,
    joins: f64,
    /// Of both sides.
    handshakes: f64,
}

impl Sent {
    /// Reads all meters, and sets them back.
    fn read(world: &mut World, since: Micros) -> Self {
        let seconds = (world.now() - since) as f64 / SECOND as f64;
        let joins: u64 = world.nodes.iter().map(|node| node.meter.joins).sum();
        let joins = joins as f64 / seconds / world.up().count().max(1) as f64;
        let traffic = world.read_meters(since);
        Self { upkeep: traffic.mean - joins, joins, handshakes: traffic.with_handshakes - traffic.mean }
    }

    fn all(&self) -> f64 {
        self.upkeep + self.joins + self.handshakes
    }
}

/// The ten seconds in which most is sent.
struct Peak {
    most: Sent,
    last: Micros,
}

impl Peak {
    fn look(&mut self, world: &mut World) {
        let now = world.now();
        if now >= self.last + GRAIN {
            let sent = Sent::read(world, self.last);
            self.last = now;
            if sent.all() > self.most.all() {
                self.most = sent;
            }
        }
    }
}

/// Scenario 25. All that nobody asked for counts: lookups of those who join, what holders hand over, and the handshakes of both sides.
pub(super) fn storm(settings: &Settings) -> Report {
    let mut world = World::standing(with_records(settings));
    world.give_disks();
    let mut stream = world.stream(0, Purpose::Churn);
    let mut gathered = Gathered::default();
    let records = publish(&mut world, &mut gathered, &mut stream);
    let rest = settings.seconds.map_or(REST, |seconds| seconds * SECOND).max(STEADY);
    let end = world.now() + rest - STEADY;
    gathered.run(&mut world, end);
    world.read_meters(0);
    gathered.run(&mut world, end + STEADY);
    let steady = Sent::read(&mut world, end);
    let peak = restart_all(&mut world, &mut gathered, &mut stream);
    let row = gets_of(&mut world, &mut gathered, &mut stream, &records);
    let warm = all_warm(&mut world, |world| gets_of(world, &mut gathered, &mut stream, &records));
    let ratio = peak.all() / steady.all().max(1.0);
    let measures = vec![
        Measure::at_least("get found %, 3 min later", row.found * 100.0, 99.0),
        Measure::told("steady: B/s of a node", steady.all()),
        Measure::told("of these, upkeep", steady.upkeep),
        Measure::told("of these, joins", steady.joins),
        Measure::told("of these, handshakes", steady.handshakes),
        Measure::told("peak: B/s of a node", peak.all()),
        Measure::told("peak: upkeep", peak.upkeep),
        Measure::told("peak: joins", peak.joins),
        Measure::told("peak: handshakes", peak.handshakes),
        Measure::at_most("peak over steady traffic, joins and handshakes included", ratio, 10.0),
    ];
    report(settings, 25, &mut world, both("", warm, row).into(), measures)
}

/// Records are stored, one a second.
fn publish(world: &mut World, gathered: &mut Gathered, stream: &mut Stream) -> Vec<Record> {
    let mut records = Vec::new();
    for number in 0..RECORDS {
        let node = honest(world, stream, |_| false);
        if let Some(record) = world.sign(number, "kept", 1, LIFE, body(number.into())) {
            store(world, node, &record, REPLICAS);
            records.push(record);
        }
        let end = world.now() + SECOND;
        gathered.run(world, end);
    }
    records
}

/// All nodes restart, one after another; what was sent when most was, until it is asked what is found.
fn restart_all(world: &mut World, gathered: &mut Gathered, stream: &mut Stream) -> Sent {
    let (began, nodes) = (world.now(), world.setting.nodes);
    let mut peak = Peak { most: Sent::default(), last: began };
    for (place, node) in stream.sample(nodes, nodes).into_iter().enumerate() {
        gathered.run(world, began + place as u64 * STORM / nodes as u64);
        peak.look(world);
        world.restart_node(node as u32);
    }
    let end = began + STORM + LATER;
    while world.now() < end {
        let next = (peak.last + GRAIN).min(end);
        gathered.run(world, next);
        peak.look(world);
    }
    peak.most
}

/// Gets of what was stored before the storm.
fn gets_of(world: &mut World, gathered: &mut Gathered, stream: &mut Stream, records: &[Record]) -> Figures {
    let targets: Vec<Target> = records.iter().map(|record| record.target().clone()).collect();
    let values: Vec<Bytes> = records.iter().map(|record| record.to_bytes()).collect();
    let asked = gets(world, gathered, stream, &targets, &Asking::new(500, 100 * MILLI), |_| false);
    figures(gathered, &asked, |which, value| values.get(which) == Some(value))
}
