//! Scenario 11: a newcomer among hostile first contacts.

use bytes::Bytes;
use peerage_dht::record::Record;
use peerage_dht::{Event, Source};

use super::super::attack::colluders::Colluders;
use super::super::machines::{Setting, World};
use super::super::queue::{MILLI, Micros, SECOND};
use super::super::report::{Measure, Report};
use super::super::still::peer_id;
use super::super::stream::Purpose;
use super::Settings;
use super::attacks::{LIFE, REPLICAS, with_records};
use super::machines::report;
use super::runs::{Asked, Gathered, all_warm, body, both, figures, get, honest, store};

/// The share of all identities that belongs to the attacker of scenario 11.
const TRAP: f64 = 0.05;

/// Scenario 11: newcomers know three nodes, two of which lead into a trap: nodes that name each other alone.
pub(super) fn eclipse(settings: &Settings) -> Report {
    let newcomers = settings.lookups.unwrap_or(100) as usize;
    let traps = ((settings.nodes as f64 * TRAP) as usize).max(40);
    let guests = (0..traps as u64).map(|one| peer_id(settings.seed, (1 << 44) + one)).collect();
    let setting = Setting { guests, strangers: newcomers, ..with_records(settings) };
    let mut world = World::standing(setting);
    let honest_nodes = settings.nodes as u32;
    let bad = honest_nodes..honest_nodes + traps as u32;
    world.adversary = Some(Box::new(Colluders::new(&world, bad.clone())));
    let mut stream = world.stream(0, Purpose::Attack);
    let mut gathered = Gathered::default();
    let mut records = Vec::new();
    for number in 0..50 {
        let node = honest(&world, &mut stream, |_| false);
        if let Some(record) = world.sign(number, "eclipse", 1, LIFE, body(number.into())) {
            store(&mut world, node, &record, REPLICAS);
            records.push(record);
        }
        let end = world.now() + 200 * MILLI;
        gathered.run(&mut world, end);
    }
    let end = world.now() + 30 * SECOND;
    gathered.run(&mut world, end);
    let (began, mut starts) = (world.now(), Vec::new());
    for node in bad.end..bad.end + newcomers as u32 {
        let mut contacts = vec![world.nodes[honest(&world, &mut stream, |_| false) as usize].contact.clone()];
        for place in stream.sample(traps, 2) {
            contacts.push(world.nodes[bad.start as usize + place].contact.clone());
        }
        // The honest one comes first, second or last.
        let place = stream.below(3);
        contacts.swap(0, place);
        world.start_node(node, contacts, Source::Bootstrap);
        starts.push((node, world.now()));
        let end = world.now() + SECOND;
        gathered.run(&mut world, end);
    }
    // Each asks five times, a minute after it came.
    let mut asked = Vec::new();
    for (number, (node, start)) in starts.iter().enumerate() {
        gathered.run(&mut world, (start + 60 * SECOND).max(began));
        for more in 0..5 {
            let which = (5 * number + more) % records.len();
            let operation = get(&mut world, *node, records[which].target());
            asked.push(Asked { operation, which });
        }
    }
    let end = world.now() + 12 * SECOND;
    gathered.run(&mut world, end);
    let detected = starts.iter().filter(|(node, start)| {
        gathered.events.iter().any(|(at, who, event)| {
            who == node && *at <= start + 60 * SECOND && matches!(event, Event::SizesDisagree { .. })
        })
    });
    let detected = detected.count() as f64 / starts.len().max(1) as f64 * 100.0;
    let values: Vec<Bytes> = records.iter().map(|record| record.to_bytes()).collect();
    let row = figures(&gathered, &asked, |which, value| values.get(which) == Some(value));
    let honest_share = starts.iter().map(|(node, _)| honest_entries(&world, *node, &bad)).sum::<f64>();
    let measures = vec![
        Measure::at_least("newcomers that saw the sizes disagree %", detected, 99.0),
        Measure::at_least("gets found % a minute after coming", row.found * 100.0, 99.0),
        Measure::told(
            "share of honest entries in newcomers' tables",
            honest_share / starts.len().max(1) as f64,
        ),
        Measure::told("the same if nobody lied", settings.nodes as f64 / (settings.nodes + traps) as f64),
    ];
    let warm = all_warm(&mut world, |world| {
        let asked = ask_again(world, &mut gathered, &starts, &records);
        figures(&gathered, &asked, |which, value| values.get(which) == Some(value))
    });
    report(settings, 11, &mut world, both("newcomer", warm, row).into(), measures)
}

/// Each newcomer asks five times more, one after another.
fn ask_again(
    world: &mut World,
    gathered: &mut Gathered,
    newcomers: &[(u32, Micros)],
    records: &[Record],
) -> Vec<Asked> {
    let mut asked = Vec::new();
    for (number, (node, _)) in newcomers.iter().enumerate() {
        for more in 0..5 {
            let which = (5 * number + more) % records.len();
            let operation = get(world, *node, records[which].target());
            asked.push(Asked { operation, which });
        }
        let end = world.now() + SECOND;
        gathered.run(world, end);
    }
    let end = world.now() + 12 * SECOND;
    gathered.run(world, end);
    asked
}

/// The share of a node's table that is not the attacker's.
fn honest_entries(world: &World, node: u32, bad: &std::ops::Range<u32>) -> f64 {
    let Some(dht) = &world.nodes[node as usize].dht else { return 0.0 };
    let all = dht.table().len().max(1);
    let good = dht
        .table()
        .peers()
        .filter(|(contact, _)| world.node_of(contact).is_some_and(|peer| !bad.contains(&peer)));
    good.count() as f64 / all as f64
}
