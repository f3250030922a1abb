//! Scenario 14: writers race for the same places while clocks are wrong and the network is parted.

use std::collections::{BTreeMap, BTreeSet};

use peerage_dht::record::{EntryId, Record, Version};
use peerage_dht::replication::period;
use peerage_dht::store::Equivocation;
use peerage_dht::{Event, Target};
use peerage_identity::PeerId;

use super::super::figures::Figures;
use super::super::machines::World;
use super::super::queue::{MILLI, Micros, SECOND};
use super::super::report::{Measure, Report};
use super::super::stream::{Purpose, Stream};
use super::Settings;
use super::attacks::{LIFE, REPLICAS, with_records};
use super::machines::{MINUTE, report};
use super::runs::{Asked, Gathered, all_warm, body, both, figures, get, store};

/// Writers, in groups that write to one place each.
const WRITERS: usize = 200;
/// Places.
const PLACES: usize = 20;
/// Readers of each place on each side, who read again and again.
const READERS: usize = 2;
/// How often each reads with all contacts warm, when all is over.
const WARM_READS: usize = 5;
/// How far clocks are wrong, in seconds, either way.
const SKEW: f64 = 120.0;
/// One clock in so many is wrong by half an hour.
const WRONG: u32 = 100;
/// How long the network is parted; `--seconds` shortens it.
const PARTED: Micros = 10 * MINUTE;

/// One reader: what it has read last on its side, and what it waits for.
#[derive(Debug)]
struct Reader {
    node: u32,
    which: usize,
    seen: Option<Version>,
    waits: Option<u64>,
}

/// What readers saw.
#[derive(Debug, Default)]
struct Seen {
    reads: u64,
    found: u64,
    /// A reader saw less than it had seen itself.
    back: u64,
    /// A reader saw less than somebody of its side had seen before it asked.
    behind: u64,
    asked: Vec<Asked>,
    /// The newest version that was read on each side of each place, and since when.
    newest: BTreeMap<(u8, usize), Vec<(Micros, Version)>>,
}

/// What a racing writer has signed and begun to store.
#[derive(Debug)]
struct Said {
    record: Record,
    operation: u64,
}

/// What became of the numbers under which racing writers signed two bodies. A number that each side of a parted network saw one body of, and that both had left behind when they met again,
/// nobody can know of: of such a place it is told all the same, for its publisher has said two things elsewhere as well.
#[derive(Debug, Default)]
struct Twice {
    signed: usize,
    /// Holders accepted two of the bodies, each of them at least one holder.
    accepted: usize,
    accepted_reported: usize,
    /// One holder accepted two of them: the second while it held the first.
    met: usize,
    met_reported: usize,
    /// Places with a number of which holders accepted two bodies.
    places: BTreeSet<usize>,
    places_reported: usize,
}

impl Twice {
    fn measures(&self) -> Vec<Measure> {
        let share = |part: usize, of: usize| if of == 0 { 100.0 } else { part as f64 / of as f64 * 100.0 };
        vec![
            Measure::told("numbers that racing writers signed twice", self.signed as f64),
            Measure::told("of these, two bodies accepted by holders", self.accepted as f64),
            Measure::told("the same, reported %", share(self.accepted_reported, self.accepted)),
            Measure::told("of these, two bodies accepted by one holder", self.met as f64),
            Measure::at_least("the same, reported by somebody %", share(self.met_reported, self.met), 100.0),
            Measure::at_least(
                "racing places with two accepted bodies under one number, reported %",
                share(self.places_reported, self.places.len()),
                100.0,
            ),
        ]
    }
}

struct Race {
    world: World,
    gathered: Gathered,
    stream: Stream,
    writers: Vec<u32>,
    readers: Vec<Reader>,
    targets: Vec<Target>,
    /// The last sequence number that each writer knows of.
    known: Vec<u64>,
    /// Bodies of each place and sequence number: two of one number are an equivocation.
    signed: BTreeMap<(usize, u64), Vec<Said>>,
    seen: Seen,
    bodies: u64,
}

/// Scenario 14.
pub(super) fn order(settings: &Settings) -> Report {
    let mut race = Race::new(settings);
    let parted = settings.seconds.map_or(PARTED, |seconds| seconds * SECOND);
    // Whole, parted, whole again: in each part writers write and readers read.
    race.run(MINUTE.min(parted), 5 * SECOND);
    race.world.part(|node| (node % 2) as u8);
    race.forget();
    race.say_twice();
    race.run(parted, 20 * SECOND);
    race.world.part(|_| 0);
    race.forget();
    let repair = race.period();
    let healed = race.world.now();
    let converged = race.converge(healed + 4 * repair);
    race.hear(healed + 4 * repair);
    let twice = race.twice();
    let reported = race.reported();
    let row = figures(&race.gathered, &race.seen.asked, |_, _| true);
    let warm = race.read_warm();
    let Race { mut world, seen, .. } = race;
    let mut measures = vec![
        Measure::told("reads", seen.reads as f64),
        Measure::told("reads that found something %", seen.found as f64 / seen.reads.max(1) as f64 * 100.0),
        Measure::at_most("readers that saw less than they had seen", seen.back as f64, 0.0),
        Measure::told("reads below what another reader of the side had seen", seen.behind as f64),
        Measure::told("the holders' period T_p, s", repair as f64 / SECOND as f64),
        Measure::at_most("all holders agree after the heal, in T_p", converged as f64 / repair as f64, 2.0),
        Measure::at_least(
            "places with two bodies under one number, reported %",
            reported as f64 / PLACES as f64 * 100.0,
            100.0,
        ),
    ];
    measures.extend(twice.measures());
    report(settings, 14, &mut world, both("race", warm, row).into(), measures)
}

impl Race {
    fn new(settings: &Settings) -> Self {
        let mut world = World::standing(with_records(settings));
        let mut stream = world.stream(0, Purpose::Records);
        for node in 0..settings.nodes {
            let skew = (stream.unit() * 2.0 - 1.0) * SKEW;
            let wrong = stream.below(WRONG as usize) == 0;
            world.nodes[node].clock_ahead = if wrong { 1_800 } else { skew as i64 };
        }
        let chosen = stream.sample(settings.nodes, WRITERS + 2 * READERS * PLACES);
        let chosen: Vec<u32> = chosen.into_iter().map(|node| node as u32).collect();
        let (writers, readers) = chosen.split_at(WRITERS.min(chosen.len() / 2));
        let readers = readers.iter().enumerate().map(|(number, node)| Reader {
            node: *node,
            which: number % PLACES,
            seen: None,
            waits: None,
        });
        let places = (0..PLACES as u32)
            .filter_map(|place| super::super::machines::place_of(settings.seed, place, "race"))
            .collect();
        Self {
            gathered: Gathered::default(),
            known: vec![0; writers.len()],
            writers: writers.to_vec(),
            readers: readers.collect(),
            targets: places,
            signed: BTreeMap::new(),
            seen: Seen::default(),
            bodies: 0,
            stream,
            world,
        }
    }

    /// For so long somebody writes every now and then (each writer once in `pause` on the mean), and readers read as fast as they get answers.
    fn run(&mut self, span: Micros, pause: Micros) {
        let end = self.world.now() + span;
        let step = (pause / self.writers.len() as u64).max(20 * MILLI);
        while self.world.now() < end {
            self.write();
            self.read();
            let next = (self.world.now() + step).min(end);
            self.gathered.run(&mut self.world, next);
        }
        // Who still waits for an answer gets it, and it counts on this side.
        let last = self.world.now() + 12 * SECOND;
        self.gathered.run(&mut self.world, last);
        self.take();
    }

    /// A writer signs what follows the last that it knows of; writers of one place may do so with the same number.
    fn write(&mut self) {
        let number = self.stream.below(self.writers.len());
        let place = number % PLACES;
        let side = self.world.nodes[self.writers[number] as usize].side;
        // It has read what readers of its side have read a while ago.
        let read = self.seen.newest.get(&(side, place)).and_then(|seen| seen.iter().rev().nth(1));
        let seq = self.known[number].max(read.map_or(0, |(_, version)| version.seq)) + 1;
        self.known[number] = seq;
        self.bodies += 1;
        let Some(record) = self.world.sign(place as u32, "race", seq, LIFE, body(self.bodies)) else {
            return;
        };
        let operation = store(&mut self.world, self.writers[number], &record, REPLICAS);
        self.signed.entry((place, seq)).or_default().push(Said { record, operation });
    }

    /// Takes in what was read, and asks again.
    fn read(&mut self) {
        self.take();
        for reader in &mut self.readers {
            if reader.waits.is_some() || self.stream.below(20) > 0 {
                continue;
            }
            let operation = get(&mut self.world, reader.node, &self.targets[reader.which]);
            reader.waits = Some(operation);
            self.seen.asked.push(Asked { operation, which: reader.which });
        }
    }

    /// When all is over each reader reads again, a few times, with all contacts warm.
    fn read_warm(&mut self) -> Figures {
        let (gathered, readers, targets) = (&mut self.gathered, &self.readers, &self.targets);
        all_warm(&mut self.world, |world| {
            let mut asked = Vec::new();
            for reader in (0..WARM_READS).flat_map(|_| readers) {
                let operation = get(world, reader.node, &targets[reader.which]);
                asked.push(Asked { operation, which: reader.which });
                let next = world.now() + 20 * MILLI;
                gathered.run(world, next);
            }
            let last = world.now() + 12 * SECOND;
            gathered.run(world, last);
            figures(gathered, &asked, |_, _| true)
        })
    }

    fn take(&mut self) {
        for reader in &mut self.readers {
            let Some(ended) = reader.waits.and_then(|waits| self.gathered.ended.get(&waits)) else {
                continue;
            };
            reader.waits = None;
            self.seen.reads += 1;
            let Some(found) = ended.outcome.values.first() else { continue };
            let Some(record) = self.world.open(&found.value) else { continue };
            let version = *record.version();
            self.seen.found += 1;
            if reader.seen.is_some_and(|seen| seen.seq > version.seq) {
                self.seen.back += 1;
            }
            reader.seen = reader.seen.max(Some(version));
            let side = self.world.nodes[reader.node as usize].side;
            let newest = self.seen.newest.entry((side, reader.which)).or_default();
            let asked = self.world.now().saturating_sub(ended.took);
            let before = newest.iter().rev().find(|(at, _)| *at <= asked);
            self.seen.behind += u64::from(before.is_some_and(|(_, seen)| seen.seq > version.seq));
            if newest.last().is_none_or(|(_, seen)| *seen < version) {
                newest.push((self.world.now(), version));
            }
        }
    }

    /// The sides have changed: what was seen before says nothing.
    fn forget(&mut self) {
        self.seen.newest.clear();
        for reader in &mut self.readers {
            (reader.seen, reader.waits) = (None, None);
        }
    }

    /// The longest period after which holders compare again, of all nodes.
    fn period(&self) -> Micros {
        let config = &self.world.setting.config.replication;
        let periods = self.world.nodes.iter().filter_map(|node| {
            let dht = node.dht.as_ref()?;
            Some(period(config, 8, |span| dht.stays(std::time::Duration::ZERO, span)))
        });
        periods.max().unwrap_or(config.period_most).as_micros() as Micros
    }

    /// Runs until all of the closest holders of each place have the same version; since the heal.
    fn converge(&mut self, until: Micros) -> Micros {
        let healed = self.world.now();
        while self.world.now() < until && !self.agree() {
            let next = self.world.now() + 30 * SECOND;
            self.gathered.run(&mut self.world, next);
        }
        self.world.now() - healed
    }

    /// Waits for the reports of what was said twice: those places may agree later than the others.
    fn hear(&mut self, until: Micros) {
        while self.world.now() < until && self.reported() < PLACES {
            let next = self.world.now() + 30 * SECOND;
            self.gathered.run(&mut self.world, next);
        }
    }

    fn agree(&self) -> bool {
        self.targets.iter().enumerate().all(|(place, target)| {
            let Some(id) = self.id_of(place) else { return true };
            let mut versions = Vec::new();
            for node in self.world.closest_up(target.key(), REPLICAS) {
                let store = self.world.nodes[node as usize].dht.as_ref().and_then(|dht| dht.store());
                versions.push(store.and_then(|store| store.version(&id)));
            }
            versions.windows(2).all(|pair| pair[0] == pair[1]) && versions.iter().all(Option::is_some)
        })
    }

    fn id_of(&self, place: usize) -> Option<EntryId> {
        let of_place = self.signed.range((place, 0)..(place + 1, 0));
        of_place.flat_map(|(_, said)| said).next().map(|said| said.record.id())
    }

    /// While the network is parted, each side stores another body under one number at these places, and nothing afterwards.
    fn say_twice(&mut self) {
        for place in PLACES as u32..2 * PLACES as u32 {
            for side in 0..2 {
                self.bodies += 1;
                let record = self.world.sign(place, "twice", 1, LIFE, body(self.bodies));
                let of_side = |node: &&u32| self.world.nodes[**node as usize].side == side;
                let writers: Vec<u32> = self.writers.iter().filter(of_side).copied().collect();
                // In a small network a writer has several places.
                let writer = writers.get(place as usize % writers.len().max(1)).copied();
                let (Some(record), Some(writer)) = (record, writer) else { continue };
                store(&mut self.world, writer, &record, REPLICAS);
                let next = self.world.now() + 200 * MILLI;
                self.gathered.run(&mut self.world, next);
            }
        }
    }

    /// At how many of those places somebody has reported it.
    fn reported(&self) -> usize {
        let mut told: Vec<&Target> = Vec::new();
        for (_, _, event) in &self.gathered.events {
            if let Event::Equivocation(proof) = event
                && !told.contains(&&proof.target)
                && !self.targets.contains(&proof.target)
            {
                told.push(&proof.target);
            }
        }
        told.len()
    }

    /// What has been proved by now: the numbers of racing writers' places under which somebody, a holder or who asked, has seen two bodies.
    fn proved(&self) -> BTreeSet<(usize, u64)> {
        let told = self.gathered.events.iter().filter_map(|(_, _, event)| match event {
            Event::Equivocation(proof) => Some(&**proof),
            _ => None,
        });
        let ended = self.gathered.ended.values().chain(self.gathered.settled.values());
        let seen = ended.filter_map(|one| one.outcome.equivocation.as_deref());
        told.chain(seen).filter_map(|proof| self.number_of(proof)).collect()
    }

    fn number_of(&self, proof: &Equivocation) -> Option<(usize, u64)> {
        let place = self.targets.iter().position(|target| *target == proof.target)?;
        Some((place, self.world.open(proof.values.first()?)?.version().seq))
    }

    /// What became of what racing writers signed twice.
    fn twice(&self) -> Twice {
        let proved = self.proved();
        let mut twice = Twice::default();
        for (number, said) in self.signed.iter().filter(|(_, said)| said.len() > 1) {
            let reported = usize::from(proved.contains(number));
            let holders: Vec<BTreeSet<PeerId>> = said.iter().map(|said| self.takers(said)).collect();
            twice.signed += 1;
            if holders.iter().filter(|holders| !holders.is_empty()).count() < 2 {
                continue;
            }
            twice.accepted += 1;
            twice.accepted_reported += reported;
            twice.places.insert(number.0);
            let rest = |at: usize| holders[at + 1..].iter();
            let meets = |at: usize| rest(at).any(|other| !holders[at].is_disjoint(other));
            if (0..holders.len()).any(meets) {
                twice.met += 1;
                twice.met_reported += reported;
            }
        }
        let is_told = |place: &&usize| proved.range((**place, 0)..(**place + 1, 0)).next().is_some();
        twice.places_reported = twice.places.iter().filter(is_told).count();
        twice
    }

    /// Who has accepted a body from its writer.
    fn takers(&self, said: &Said) -> BTreeSet<PeerId> {
        let stored = self.gathered.of(said.operation).into_iter().flat_map(|ended| &ended.outcome.stored);
        stored.map(|holder| *holder.peer()).collect()
    }
}
