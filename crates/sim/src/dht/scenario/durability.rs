//! Scenario 7: records outlive their publishers, who are never there, while holders come and go.

use std::sync::Arc;
use std::time::Duration;

use peerage_dht::record::{Record, RecordsConfig};
use peerage_dht::{Class, Operation, Options};

use super::super::figures::Figures;
use super::super::machines::{Setting, World};
use super::super::queue::{MILLI, SECOND};
use super::super::report::{Measure, Report, Row};
use super::super::stream::Purpose;
use super::Settings;
use super::machines::{HOUR, MINUTE, setting};
use super::runs::{Asked, Gathered, all_warm, body, both, figures, honest};

/// The study's span; `--seconds` shortens it.
const SPAN: u64 = 7 * 24 * HOUR;
/// Records for each node that is up: 100,000 at 10,000 nodes.
const RECORDS: usize = 10;
/// More identities than are up, as a share of these: those who are away.
const AWAY: f64 = 0.2;

/// Scenario 7.
pub(super) fn survive(settings: &Settings) -> Report {
    let (mut rows, mut measures, mut hash, mut broken, mut last) = (Vec::new(), Vec::new(), 0u64, None, None);
    for replicas in [12, 20] {
        let mut run = run(settings, replicas);
        rows.extend(run.rows);
        measures.append(&mut run.measures);
        hash = hash.rotate_left(7) ^ run.world.trace.hash();
        broken = broken.or(run.world.broken_at_the_end());
        last = Some(run.world);
    }
    super::attacks::finish(settings, 7, last, hash, broken, rows, measures)
}

/// In seconds.
const DAY: u64 = 24 * 3_600;

struct Run {
    world: World,
    rows: [Row; 2],
    measures: Vec<Measure>,
}

fn run(settings: &Settings, replicas: usize) -> Run {
    let span = settings.seconds.map_or(SPAN, |seconds| seconds * SECOND);
    let mut config = RecordsConfig::default();
    // Long enough that nothing expires: nobody is there to renew it.
    config.value.max_ttl = Duration::from_secs((9 * DAY).max(span / SECOND + 2 * DAY));
    config.value.replicas = replicas;
    let setting = Setting { records: Some(Arc::new(config)), ..setting(settings) };
    let mut world = World::standing(setting);
    world.audit.every = 5 * MINUTE;
    let mut stream = world.stream(replicas as u64, Purpose::Records);
    for node in stream.sample(settings.nodes, (settings.nodes as f64 * AWAY) as usize) {
        world.stop_node(node as u32);
    }
    let up = world.up().count();
    let life = span / SECOND + DAY;
    let mut records = Vec::new();
    for number in 0..(up * RECORDS) as u32 {
        let Some(record) = world.sign(number, "kept", 1, life, body(number.into())) else { continue };
        world.plant(&record, replicas);
        records.push(record);
    }
    world.churn(0.61, 3.66);
    let mut gathered = Gathered::default();
    let began = world.now();
    world.read_meters(began);
    gathered.run(&mut world, began + span);
    let traffic = world.read_meters(began);
    let replicas_of = world.replicas();
    let live = |record: &Record| replicas_of.get(&record.id()).copied().unwrap_or_default();
    let lost = records.iter().filter(|record| live(record) == 0).count();
    let fewest = records.iter().map(live).min().unwrap_or_default();
    let mean = records.iter().map(|record| f64::from(live(record))).sum::<f64>() / records.len() as f64;
    let row = quiet_gets(&mut world, &mut gathered, settings, &records, 1);
    let kept = records.iter().filter(|record| live(record) > 0).count() as f64 / records.len() as f64;
    let name = |what: &str| format!("r = {replicas}: {what}");
    let bar = if replicas >= 20 { 0.0 } else { 1e-5 };
    let measures = vec![
        Measure::at_most(name("share of records lost"), lost as f64 / records.len() as f64, bar),
        Measure::at_most(name("repair B/s of a node"), traffic.repair, 40.0),
        Measure::told(name("records"), records.len() as f64),
        Measure::told(name("live holders of a record, mean"), mean),
        Measure::told(name("the same, fewest"), f64::from(fewest)),
        Measure::told(name("records of a node, mean"), mean * records.len() as f64 / up as f64),
        // D.3-7: what somebody holds, a quiet lookup finds.
        Measure::at_least(
            name("of records with a holder, found %"),
            (row.found / kept.max(1e-9)).min(1.0) * 100.0,
            99.95,
        ),
        Measure::told(name("upkeep B/s of a node, all of it"), traffic.mean),
    ];
    let warm = all_warm(&mut world, |world| quiet_gets(world, &mut gathered, settings, &records, 2));
    let rows = both(if replicas >= 20 { "r = 20" } else { "r = 12" }, warm, row);
    Run { world, rows, measures }
}

/// Gets of records that somebody holds, one after another.
fn quiet_gets(
    world: &mut World,
    gathered: &mut Gathered,
    settings: &Settings,
    records: &[Record],
    run: u64,
) -> Figures {
    let mut stream = world.stream(run, Purpose::Queries);
    let mut asked = Vec::new();
    for _ in 0..settings.lookups.unwrap_or(1_000) {
        let which = stream.below(records.len());
        let node = honest(world, &mut stream, |_| false);
        let wanted = Operation::Get { target: records[which].target().clone() };
        let options = Options { class: Class::Interactive, ..Options::default() };
        asked.push(Asked { operation: world.start(node, wanted, options), which });
        let end = world.now() + 100 * MILLI;
        gathered.run(world, end);
    }
    let end = world.now() + 12 * SECOND;
    gathered.run(world, end);
    figures(gathered, &asked, |which, value| records.get(which).is_some_and(|one| one.to_bytes() == *value))
}
