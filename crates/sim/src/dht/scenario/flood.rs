//! Scenario 15: one node in a hundred stores a hundred times as much as the others, and wants them to run over.

use std::collections::BTreeSet;

use bytes::Bytes;
use peerage_dht::{Ended, Operation, Options, Query, Target};

use super::super::machines::World;
use super::super::queue::{MILLI, Micros, SECOND};
use super::super::report::{Measure, Report};
use super::super::stream::{Purpose, Stream};
use super::Settings;
use super::attacks::{LIFE, REPLICAS, with_records};
use super::machines::{MINUTE, report};
use super::runs::{Asking, Gathered, all_warm, body, both, figures, gets, honest, store};

/// An honest node stores one record in this time.
const EVERY: Micros = 5 * MINUTE;
/// A hostile one so many.
const TIMES: u64 = 100;
/// How long it goes on.
const SPAN: Micros = 5 * MINUTE;
/// Copies of a record that a flooder sends, to whoever is closest.
const COPIES: usize = 20;
/// Publishers' keys that each flooder signs with.
const KEYS: u32 = 8;

/// Scenario 15.
pub(super) fn flood(settings: &Settings) -> Report {
    let nodes = settings.nodes as u64;
    let span = settings.seconds.map_or(SPAN, |seconds| seconds * SECOND);
    let mut setting = with_records(settings);
    // Stores hold three times what all store honestly, on the mean; with the flood, those who lie far from others are full.
    let honest_records = (nodes * span / EVERY) as usize;
    setting.config.store.max_records = (3 * COPIES * honest_records / settings.nodes).max(20);
    setting.config.store.max_bytes = setting.config.store.max_records * 2_000;
    // All that is stored here is of one kind.
    setting.config.store.namespace_share = 1.0;
    let limit = setting.config.store.clone();
    let mut world = World::standing(setting);
    let mut stream = world.stream(0, Purpose::Attack);
    let flooders: BTreeSet<u32> =
        stream.sample(settings.nodes, settings.nodes / 100).into_iter().map(|node| node as u32).collect();
    let mut flood = Flood { flooders: flooders.iter().copied().collect(), sent: 0 };
    let is_bad = |node| flooders.contains(&node);
    let mut gathered = Gathered::default();
    let (mut records, mut stores) = (Vec::new(), Vec::new());
    let (mut fullest, mut number) = (Usage::default(), 0u32);
    let began = world.now();
    let pause = EVERY / nodes;
    let per_step = TIMES * flood.flooders.len() as u64;
    let mut owed = 0;
    while world.now() < began + span {
        let node = honest(&world, &mut stream, is_bad);
        if let Some(record) = world.sign(number, "honest", 1, LIFE, body(number.into())) {
            stores.push(store(&mut world, node, &record, REPLICAS));
            records.push(record);
        }
        number += 1;
        // While each of all nodes stores once, each flooder does so a hundred times.
        owed += per_step;
        while owed >= nodes {
            owed -= nodes;
            flood.send(&mut world, &mut stream);
        }
        let next = world.now() + pause.max(MILLI);
        gathered.run(&mut world, next);
        if number.is_multiple_of(50) {
            fullest.look(&world);
        }
    }
    let end = world.now() + 40 * SECOND;
    gathered.run(&mut world, end);
    fullest.look(&world);
    let good = stores
        .iter()
        .filter(|one| gathered.ended.get(one).is_some_and(|ended| ended.outcome.ended == Ended::Stored));
    let good = good.count() as f64 / stores.len().max(1) as f64 * 100.0;
    let targets: Vec<Target> = records.iter().map(|record| record.target().clone()).collect();
    let count = settings.lookups.unwrap_or(500);
    let values: Vec<Bytes> = records.iter().map(|record| record.to_bytes()).collect();
    let mut got = |world: &mut World| {
        let asked =
            gets(world, &mut gathered, &mut stream, &targets, &Asking::new(count, 50 * MILLI), is_bad);
        figures(&gathered, &asked, |which, value| values.get(which) == Some(value))
    };
    let row = got(&mut world);
    let measures = vec![
        Measure::at_least("honest stores that came to their end %", good, 99.0),
        Measure::at_least("honest records found afterwards %", row.found * 100.0, 99.0),
        Measure::at_most(
            "fullest store over its bound, records",
            fullest.records as f64 / limit.max_records as f64,
            1.0,
        ),
        Measure::at_most(
            "fullest store over its bound, bytes",
            fullest.bytes as f64 / limit.max_bytes as f64,
            1.0,
        ),
        Measure::at_most(
            "most of one publisher over its bound, bytes",
            fullest.publisher as f64 / limit.publisher_bytes as f64,
            1.0,
        ),
        Measure::at_most(
            "most askers counted, over the bound",
            fullest.tracked as f64 / world.setting.config.serve.tracked_peers as f64,
            1.0,
        ),
        Measure::told("honest stores", stores.len() as f64),
        Measure::told("copies that flooders sent", flood.sent as f64),
    ];
    let rows = both("flood", all_warm(&mut world, got), row);
    report(settings, 15, &mut world, rows.into(), measures)
}

/// Who floods.
struct Flood {
    flooders: Vec<u32>,
    sent: u64,
}

impl Flood {
    /// One record of one of them, to all who are closest to it: it knows everybody, and waits for nobody.
    fn send(&mut self, world: &mut World, stream: &mut Stream) {
        let place = stream.below(self.flooders.len());
        let Some(node) = self.flooders.get(place).copied() else { return };
        let key = 1_000_000 + node * KEYS + stream.below(KEYS as usize) as u32;
        let salt = stream.number().to_string();
        let Some(record) = world.sign(key, &salt, 1, LIFE, body(self.sent)) else { return };
        let near = world.closest_up(record.target().key(), COPIES);
        for holder in near {
            let query = Query::PutValue { target: record.target().clone(), value: record.to_bytes() };
            world.send(node, holder, query);
            self.sent += 1;
        }
        // Now and then it asks for something far as well, as lookups of others do.
        if stream.chance(0.05) {
            let target = Target::of_hash(&stream.bytes());
            world.start(node, Operation::Closest { target }, Options::default());
        }
    }
}

/// The most that any node has held.
#[derive(Debug, Default)]
struct Usage {
    records: usize,
    bytes: usize,
    publisher: usize,
    tracked: usize,
}

impl Usage {
    fn look(&mut self, world: &World) {
        for dht in world.nodes.iter().filter_map(|node| node.dht.as_ref()) {
            let Some(store) = dht.store() else { continue };
            self.records = self.records.max(store.used().records);
            self.bytes = self.bytes.max(store.used().bytes);
            let most = store.all().filter_map(|summary| world.audit.publisher(&summary.id));
            let most = most.map(|publisher| store.used_by(&publisher).bytes).max();
            self.publisher = self.publisher.max(most.unwrap_or_default());
            self.tracked = self.tracked.max(dht.standing(world.clock()).tracked);
        }
    }
}
