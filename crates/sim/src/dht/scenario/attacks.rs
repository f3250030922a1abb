//! Attacks: Sybils around a key (9), colluders everywhere (10).

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use peerage_dht::record::{Record, RecordsConfig};
use peerage_dht::{Operation, Options, Target};
use peerage_identity::PeerId;

use super::super::attack::colluders::Colluders;
use super::super::attack::sybils::{COVERT, Lie, Pool, SHY, Sybils};
use super::super::machines::{Setting, World, place_of};
use super::super::policy::Kind;
use super::super::queue::{MILLI, SECOND};
use super::super::report::{Measure, Report, Row};
use super::super::still::{Key as Front, peer_id};
use super::super::stream::{Purpose, Stream};
use super::Settings;
use super::beside::{self, Attacked};
use super::machines::{report, setting};
use super::runs::{Asking, Gathered, all_warm, body, both, figures, gets, honest, store};

/// Records live for so many seconds here: nobody renews them.
pub(super) const LIFE: u64 = 24 * 3_600;
/// At so many peers a value is stored.
pub(super) const REPLICAS: usize = 12;

pub(super) fn with_records(settings: &Settings) -> Setting {
    Setting { records: Some(Arc::new(RecordsConfig::default())), ..setting(settings) }
}

/// An attack of scenario 9, and how readers ask under it.
struct Attack {
    name: &'static str,
    /// What the publishers call their records: attacks of one name for these are one attack.
    salt: &'static str,
    sybils: usize,
    /// Where they leave the twentieth closest peer, if they hide.
    covert: Option<f64>,
    lie: Lie,
    /// So many answers from distinct groups of addresses end a get; zero for as many as the machine wants by default.
    quorum: usize,
    /// The least share of gets that find the value.
    bar: Option<f64>,
    /// Whether every store must be told that the place looks dense.
    alarm: bool,
}

/// More answers than there are holders: a get ends when all of the closest peers have answered.
const WHOLE: usize = usize::MAX;

impl Attack {
    const fn plain(name: &'static str, sybils: usize, bar: Option<f64>) -> Self {
        let (salt, covert, lie) = (name, None, Lie::Nothing);
        Self { name, salt, sybils, covert, lie, quorum: 0, bar, alarm: false }
    }

    const fn covert(name: &'static str, sybils: usize, lie: Lie, bar: f64) -> Self {
        let (salt, covert, bar) = (name, Some(COVERT), Some(bar));
        Self { name, salt, sybils, covert, lie, quorum: 0, bar, alarm: false }
    }

    /// An older version, by those who hide from readers as well.
    const fn shy(name: &'static str, sybils: usize) -> Self {
        let (salt, covert, lie) = (name, Some(SHY), Lie::Old);
        Self { name, salt, sybils, covert, lie, quorum: 0, bar: None, alarm: false }
    }

    /// The same attack, where readers wait for so many answers.
    const fn read(self, name: &'static str, quorum: usize) -> Self {
        Self { name, quorum, ..self }
    }
}

const OLDER_45: Attack = Attack::covert("45 covert, older", 45, Lie::Old, 99.0);
const OLDER_100: Attack = Attack::covert("100 covert, older", 100, Lie::Old, 95.0);
const SHY_45: Attack = Attack::shy("45 shy, older", 45);
const SHY_100: Attack = Attack::shy("100 shy, older", 100);

const ATTACKS: &[Attack] = &[
    Attack::plain("20 plain", 20, None),
    Attack { alarm: true, ..Attack::plain("45 plain", 45, Some(99.0)) },
    Attack::plain("100 plain", 100, Some(95.0)),
    Attack::covert("45 covert, forged", 45, Lie::Forged, 99.0),
    Attack::covert("100 covert, forged", 100, Lie::Forged, 95.0),
    OLDER_45,
    OLDER_100,
    OLDER_45.read("45 covert, older, whole read", WHOLE),
    OLDER_100.read("100 covert, older, whole read", WHOLE),
    SHY_45,
    SHY_100,
    SHY_45.read("45 shy, older, whole read", WHOLE),
    SHY_100.read("100 shy, older, whole read", WHOLE),
];

/// Scenario 9: Sybils sit around keys; records are stored there and got under attack. Each library's rules have a network of their own for each attack.
pub(super) fn sybils(settings: &Settings) -> Report {
    let pool = Pool::new(settings.seed, settings.nodes);
    let lookups = settings.lookups.unwrap_or(400);
    let mut results = Results::default();
    // First nobody attacks: what a store costs, and how often the alarm is false.
    let quiet = settings.policies.contains(&Kind::Ours).then(|| peace(settings, lookups));
    let (quiet, requests) = quiet.unzip();
    if let Some(quiet) = &quiet {
        results.measures.extend(quiet.measures.iter().cloned());
        results.rows.extend(quiet.rows.iter().cloned());
        (results.hash, results.broken) = (quiet.hash, quiet.broken.clone());
    }
    let mut others = Vec::new();
    for attack in ATTACKS {
        let (mut warm, mut mix) = (Vec::new(), Vec::new());
        // The other libraries' rules know one way to ask.
        let kinds = settings.policies.iter().filter(|kind| **kind == Kind::Ours || attack.quorum == 0);
        for kind in kinds {
            let siege = Siege::new(settings, attack, &pool);
            let rows = match kind {
                Kind::Ours => {
                    let run = under(siege, attack, lookups);
                    results.hash = results.hash.rotate_left(7) ^ run.trace;
                    results.broken = results.broken.take().or(run.broken.clone());
                    results.measures.extend(run.measures(attack, requests.unwrap_or_default()));
                    Some(run.rows)
                }
                kind => {
                    let (rows, mut world) = siege.by_others(*kind, attack, lookups);
                    others.push(world.trace.hash());
                    results.broken = results.broken.take().or(world.broken_at_the_end());
                    rows
                }
            };
            let Some([of_warm, of_mix]) = rows else { continue };
            warm.push(of_warm);
            mix.push(of_mix);
        }
        results.rows.extend(warm.into_iter().chain(mix));
    }
    results.note(&others);
    results.report(settings, 9, quiet.map(|quiet| quiet.world))
}

/// What the networks of a scenario come to.
#[derive(Default)]
struct Results {
    rows: Vec<Row>,
    measures: Vec<Measure>,
    hash: u64,
    broken: Option<String>,
}

impl Results {
    /// Takes in the hashes of the networks in which others than ours ran: without these the hash is that of ours.
    fn note(&mut self, others: &[u64]) {
        for trace in others {
            self.hash = self.hash.rotate_left(7) ^ trace;
        }
    }

    fn report(self, settings: &Settings, number: u32, world: Option<World>) -> Report {
        finish(settings, number, world, self.hash, self.broken, self.rows, self.measures)
    }
}

/// What one attack came to.
struct Run {
    rows: [Row; 2],
    alarms: f64,
    requests: f64,
    /// How many honest nodes hold the record of which the fewest do, after the store.
    holders: f64,
    trace: u64,
    broken: Option<String>,
}

impl Run {
    /// `requests`: what a store costs where nobody attacks.
    fn measures(&self, attack: &Attack, requests: f64) -> Vec<Measure> {
        let (name, [_, mix]) = (attack.name, &self.rows);
        let (found, told) = (mix.figures.found * 100.0, format!("{name}: get found %"));
        let (alarms, alarmed) = (self.alarms * 100.0, format!("{name}: lookups with an alarm %"));
        let ratio = self.requests / requests.max(1.0);
        let found = match attack.bar {
            Some(bar) => Measure::at_least(told, found, bar),
            None => Measure::told(told, found),
        };
        // Stores were counted where readers ask as they do by default.
        if attack.quorum > 0 {
            return vec![found];
        }
        vec![
            found,
            match attack.alarm {
                true => Measure::at_least(alarmed, alarms, 100.0),
                false => Measure::told(alarmed, alarms),
            },
            Measure::at_most(format!("{name}: requests of a store, times a quiet one's"), ratio, 3.0),
            Measure::told(format!("{name}: fewest honest holders of a record"), self.holders),
        ]
    }
}

/// What a quiet network came to.
struct Quiet {
    world: World,
    rows: [Row; 2],
    measures: Vec<Measure>,
    hash: u64,
    broken: Option<String>,
}

/// How often honest places look dense, and what a store and a get cost there.
fn peace(settings: &Settings, lookups: u64) -> (Quiet, f64) {
    let mut world = World::standing(with_records(settings));
    let mut stream = world.stream(0, Purpose::Queries);
    let mut gathered = Gathered::default();
    let mut closest = Vec::new();
    for _ in 0..5 * lookups {
        let node = honest(&world, &mut stream, |_| false);
        let target = Target::of_hash(&stream.bytes());
        closest.push(world.start(node, Operation::Closest { target }, Options::default()));
        let end = world.now() + 50 * MILLI;
        gathered.run(&mut world, end);
    }
    let (mut stores, mut records) = (Vec::new(), Vec::new());
    for number in 0..50 {
        let node = honest(&world, &mut stream, |_| false);
        if let Some(record) = world.sign(number, "quiet", 1, LIFE, body(number.into())) {
            stores.push(store(&mut world, node, &record, REPLICAS));
            records.push(record);
        }
        let end = world.now() + 200 * MILLI;
        gathered.run(&mut world, end);
    }
    let end = world.now() + 40 * SECOND;
    gathered.run(&mut world, end);
    let places: Vec<Target> = records.iter().map(|record| record.target().clone()).collect();
    let got = |world: &mut World, gathered: &mut Gathered, stream: &mut Stream| {
        let asked = gets(world, gathered, stream, &places, &Asking::new(lookups, 100 * MILLI), |_| false);
        figures(gathered, &asked, |which, value| {
            records.get(which).is_some_and(|record| record.to_bytes() == *value)
        })
    };
    let mix = got(&mut world, &mut gathered, &mut stream);
    let warm = all_warm(&mut world, |world| got(world, &mut gathered, &mut stream));
    let rows = both("nobody attacks", warm, mix);
    let alarms = dense_share(&gathered, &closest) * 100.0;
    let requests = mean_requests(&gathered, &stores);
    let measures = vec![
        Measure::at_most("nobody attacks: false alarms %", alarms, 0.2),
        Measure::told("nobody attacks: requests of a store", requests),
    ];
    (Quiet { hash: world.trace.hash(), broken: world.broken_at_the_end(), measures, rows, world }, requests)
}

/// A network in which several keys are attacked.
struct Siege {
    world: World,
    stream: Stream,
    /// One for each key that is attacked, where it belongs.
    records: Vec<Record>,
    places: Vec<Target>,
}

impl Siege {
    fn new(settings: &Settings, attack: &Attack, pool: &Pool) -> Self {
        let keys = keys_of(settings);
        let places: Vec<Target> =
            (0..keys).filter_map(|key| place_of(settings.seed, key, attack.salt)).collect();
        let honest_fronts: Vec<u64> = (0..settings.nodes as u64)
            .map(|node| Front::of(&peer_id(settings.seed, node).to_bytes()).front)
            .collect();
        let groups: Vec<Vec<PeerId>> =
            places.iter().map(|place| group(attack, pool, place, &honest_fronts)).collect();
        let mut world = World::standing(Setting {
            guests: groups.iter().flatten().copied().collect(),
            ..with_records(settings)
        });
        let stream = world.stream(attack.sybils as u64, Purpose::Attack);
        let mut sybils = Sybils::new(attack.lie);
        let mut records = Vec::new();
        let mut first = settings.nodes as u32;
        for (key, (place, group)) in places.iter().zip(&groups).enumerate() {
            let old = world.sign(key as u32, attack.salt, 1, LIFE, body(key as u64));
            let Some(record) = world.sign(key as u32, attack.salt, 2, LIFE, body(1_000 + key as u64)) else {
                continue;
            };
            let value = match attack.lie {
                Lie::Nothing => None,
                Lie::Forged => Some(forged(&record)),
                Lie::Old => old.map(|old| old.to_bytes()),
            };
            let members = first..first + group.len() as u32;
            first = members.end;
            sybils.surround(&world, *place.key(), members, value);
            records.push(record);
        }
        world.adversary = Some(Box::new(sybils));
        Self { world, stream, records, places }
    }

    /// Stores and gets by another library's rules: their rows, and the network afterwards.
    fn by_others(mut self, kind: Kind, attack: &Attack, lookups: u64) -> (Option<[Row; 2]>, World) {
        let attacked = Attacked {
            case: attack.name,
            records: &self.records,
            pause: 500 * MILLI,
            gets: lookups,
            is_bad: &|_| false,
        };
        let rows = beside::attacked(&mut self.world, &mut self.stream, kind, &attacked);
        (rows, self.world)
    }
}

/// Stores and gets by our rules.
fn under(siege: Siege, attack: &Attack, lookups: u64) -> Run {
    let Siege { mut world, mut stream, records, places } = siege;
    let mut gathered = Gathered::default();
    let mut stores = Vec::new();
    for record in &records {
        let node = honest(&world, &mut stream, |_| false);
        stores.push(store(&mut world, node, record, REPLICAS));
        let end = world.now() + 500 * MILLI;
        gathered.run(&mut world, end);
    }
    let end = world.now() + 40 * SECOND;
    gathered.run(&mut world, end);
    let held = records.iter().map(|record| world.holders(record).len() as f64);
    let holders = held.fold(f64::INFINITY, f64::min);
    let values: Vec<Bytes> = records.iter().map(|record| record.to_bytes()).collect();
    let options = Options { quorum: attack.quorum, ..Options::default() };
    let asking = Asking { count: lookups, pause: 100 * MILLI, options };
    let got = |world: &mut World, gathered: &mut Gathered, stream: &mut Stream| {
        let asked = gets(world, gathered, stream, &places, &asking, |_| false);
        figures(gathered, &asked, |which, value| values.get(which) == Some(value))
    };
    let mix = got(&mut world, &mut gathered, &mut stream);
    // Whoever looks for the closest peers of the key is told of the attack.
    for number in 0..(lookups / 4).max(20) as usize {
        let (node, target) = (honest(&world, &mut stream, |_| false), places[number % places.len()].clone());
        stores.push(world.start(node, Operation::Closest { target }, Options::default()));
        let end = world.now() + 100 * MILLI;
        gathered.run(&mut world, end);
    }
    let end = world.now() + 40 * SECOND;
    gathered.run(&mut world, end);
    let warm = all_warm(&mut world, |world| got(world, &mut gathered, &mut stream));
    Run {
        rows: both(attack.name, warm, mix),
        alarms: dense_share(&gathered, &stores),
        requests: mean_requests(&gathered, &stores[..records.len()]),
        holders,
        trace: world.trace.hash(),
        broken: world.broken_at_the_end(),
    }
}

/// So many keys of one network are attacked at once: the attackers stay a small part of it.
fn keys_of(settings: &Settings) -> u32 {
    (settings.nodes as u32 / 1_000).clamp(1, 10)
}

fn group(attack: &Attack, pool: &Pool, place: &Target, honest: &[u64]) -> Vec<PeerId> {
    let target = Front::new(place.key().to_bytes()).front;
    let Some(score) = attack.covert else { return pool.plain(target, attack.sybils) };
    let distances: Vec<u64> = honest.iter().map(|front| front ^ target).collect();
    pool.covert(target, &distances, honest.len(), (attack.sybils, score))
}

/// What looks like the record and was not signed by its publisher.
fn forged(record: &Record) -> Bytes {
    let mut bytes = record.to_bytes().to_vec();
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
    bytes.into()
}

/// The share of these operations that were told that the place looks dense.
fn dense_share(gathered: &Gathered, operations: &[u64]) -> f64 {
    let dense = operations.iter().filter(|one| gathered.of(**one).is_some_and(|one| one.outcome.dense));
    dense.count() as f64 / operations.len().max(1) as f64
}

fn mean_requests(gathered: &Gathered, operations: &[u64]) -> f64 {
    let counts = operations.iter().filter_map(|one| gathered.of(*one)).map(|one| one.outcome.counts);
    f64::from(counts.map(|counts| counts.asked + counts.around).sum::<u32>()) / operations.len().max(1) as f64
}

/// How many collude in scenario 10.
struct Share {
    of_all: f64,
    /// What the publishers call their records.
    salt: &'static str,
    name: &'static str,
    /// The least share of gets that find the value.
    bar: f64,
}

const SHARES: &[Share] = &[
    Share { of_all: 0.1, salt: "10 %", name: "10 % collude", bar: 99.9 },
    Share { of_all: 0.2, salt: "20 %", name: "20 % collude", bar: 99.9 },
    Share { of_all: 0.3, salt: "30 %", name: "30 % collude", bar: 99.5 },
];

/// Scenario 10: a share of all nodes work together. They name each other alone, say that they store and don't. Each library's rules have a network of their own for each share.
pub(super) fn colluders(settings: &Settings) -> Report {
    let lookups = settings.lookups.unwrap_or(1_000);
    let (mut results, mut others, mut last) = (Results::default(), Vec::new(), None);
    for share in SHARES {
        let (mut warm, mut mix) = (Vec::new(), Vec::new());
        for kind in &settings.policies {
            let mut infested = Infested::new(settings, share, lookups);
            let rows = match kind {
                Kind::Ours => {
                    let rows = infested.by_us(share.name, lookups);
                    let (name, found) = (share.name, rows[1].figures.found * 100.0);
                    results.measures.push(Measure::at_least(
                        format!("{name}: get found %"),
                        found,
                        share.bar,
                    ));
                    let fewest = format!("{name}: fewest honest holders of a record");
                    results.measures.push(Measure::told(fewest, infested.fewest_holders));
                    results.hash = results.hash.rotate_left(7) ^ infested.world.trace.hash();
                    results.broken = results.broken.take().or(infested.world.broken_at_the_end());
                    Some(rows)
                }
                kind => {
                    let rows = infested.by_others(*kind, share.name, lookups);
                    others.push(infested.world.trace.hash());
                    results.broken = results.broken.take().or(infested.world.broken_at_the_end());
                    rows
                }
            };
            let Some([of_warm, of_mix]) = rows else { continue };
            warm.push(of_warm);
            mix.push(of_mix);
            last = Some(infested.world);
        }
        results.rows.extend(warm.into_iter().chain(mix));
    }
    results.note(&others);
    results.report(settings, 10, last)
}

/// A network in which a share of all nodes collude.
struct Infested {
    world: World,
    stream: Stream,
    bad: BTreeSet<u32>,
    records: Vec<Record>,
    fewest_holders: f64,
}

impl Infested {
    fn new(settings: &Settings, share: &Share, lookups: u64) -> Self {
        let mut world = World::standing(with_records(settings));
        let mut stream = world.stream((share.of_all * 100.0) as u64, Purpose::Attack);
        let chosen = stream.sample(settings.nodes, (share.of_all * settings.nodes as f64) as usize);
        let bad: BTreeSet<u32> = chosen.into_iter().map(|node| node as u32).collect();
        world.adversary = Some(Box::new(Colluders::new(&world, bad.iter().copied())));
        let numbers = 0..(lookups as u32 / 5).max(1);
        let signed = numbers.map(|number| world.sign(number, share.salt, 1, LIFE, body(number.into())));
        let records = signed.flatten().collect();
        Self { world, stream, bad, records, fewest_holders: f64::INFINITY }
    }

    fn by_us(&mut self, name: &'static str, lookups: u64) -> [Row; 2] {
        let Self { world, stream, bad, records, .. } = self;
        let is_bad = |node| bad.contains(&node);
        let mut gathered = Gathered::default();
        for record in records.iter() {
            let node = honest(world, stream, is_bad);
            store(world, node, record, REPLICAS);
            let end = world.now() + 200 * MILLI;
            gathered.run(world, end);
        }
        let end = world.now() + 40 * SECOND;
        gathered.run(world, end);
        let targets: Vec<Target> = records.iter().map(|record| record.target().clone()).collect();
        let values: Vec<Bytes> = records.iter().map(|record| record.to_bytes()).collect();
        let asking = Asking::new(lookups, 100 * MILLI);
        let mut got = |world: &mut World| {
            let asked = gets(world, &mut gathered, stream, &targets, &asking, is_bad);
            figures(&gathered, &asked, |which, value| values.get(which) == Some(value))
        };
        let mix = got(world);
        let kept = records
            .iter()
            .map(|record| world.holders(record).iter().filter(|node| !is_bad(**node)).count() as f64);
        self.fewest_holders = kept.fold(f64::INFINITY, f64::min);
        both(name, all_warm(world, got), mix)
    }

    fn by_others(&mut self, kind: Kind, name: &'static str, lookups: u64) -> Option<[Row; 2]> {
        let Self { world, stream, bad, records, .. } = self;
        let is_bad = |node| bad.contains(&node);
        let attacked = Attacked { case: name, records, pause: 200 * MILLI, gets: lookups, is_bad: &is_bad };
        beside::attacked(world, stream, kind, &attacked)
    }
}

/// The report of several worlds.
pub(super) fn finish(
    settings: &Settings,
    number: u32,
    world: Option<World>,
    hash: u64,
    broken: Option<String>,
    rows: Vec<Row>,
    measures: Vec<Measure>,
) -> Report {
    let mut world = world.unwrap_or_else(|| World::new(setting(settings)));
    world.broken = broken.or(world.broken.take());
    let mut report = report(settings, number, &mut world, rows, measures);
    report.hash = format!("{hash:016x}");
    report
}
