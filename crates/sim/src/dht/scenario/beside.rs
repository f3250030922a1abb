//! The other libraries' rows beside ours, in networks of machines in which nobody joins or leaves.

use bytes::Bytes;
use peerage_dht::Target;
use peerage_dht::record::Record;

use super::super::figures::Figures;
use super::super::machines::World;
use super::super::others::{Ended, Others};
use super::super::policy::{Goal, Kind};
use super::super::queue::{MILLI, Micros, SECOND};
use super::super::report::Row;
use super::super::stream::Stream;
use super::super::walk::Walked;
use super::machines::somebody;
use super::runs::honest;

/// Values that nodes store, and that other nodes get at once: how the stores went, and the gets. The warm share of a store is that of its questions.
pub(super) fn stores(
    world: &mut World,
    others: &mut Others,
    stream: &mut Stream,
    rounds: u64,
    named: impl Fn(u64) -> Option<(Target, Bytes)>,
) -> (Figures, Figures) {
    let (mut puts, mut gets) = (Vec::new(), Vec::new());
    for number in 0..rounds {
        let Some((target, value)) = named(number) else { continue };
        let publisher = somebody(world, stream);
        let put = others.store(world, publisher, &target, value);
        others.finish(world, put);
        let asker = somebody(world, stream);
        let get = others.get(world, asker, &target);
        others.finish(world, get);
        puts.push(put);
        gets.push(get);
    }
    let ended = |operations: &[u64]| -> Vec<&Ended> {
        operations.iter().filter_map(|operation| others.ended.get(operation)).collect()
    };
    let figures =
        |ended: &[&Ended]| Figures::of(&ended.iter().map(|ended| ended.walked.clone()).collect::<Vec<_>>());
    let (puts, gets) = (ended(&puts), ended(&gets));
    let questions: u32 = puts.iter().map(|put| put.walked.requests - put.copies).sum();
    let warm: u32 = puts.iter().map(|put| put.walked.warm).sum();
    let warm_share = f64::from(warm) / f64::from(questions.max(1));
    (Figures { warm_share, ..figures(&puts) }, figures(&gets))
}

/// What is stored and got where somebody attacks.
pub(super) struct Attacked<'a> {
    /// Under which attack, in the table.
    pub(super) case: &'static str,
    pub(super) records: &'a [Record],
    /// From one store to the next.
    pub(super) pause: Micros,
    /// How many gets, as many again with all contacts warm.
    pub(super) gets: u64,
    /// Who neither stores nor asks.
    pub(super) is_bad: &'a dyn Fn(u32) -> bool,
}

/// Stores the records by a library's rules and gets them, first with the connections that nodes have, then with all contacts warm: the row of these, and the one of those. `None` for our rules.
pub(super) fn attacked(
    world: &mut World,
    stream: &mut Stream,
    kind: Kind,
    attacked: &Attacked<'_>,
) -> Option<[Row; 2]> {
    let mut others = Others::new(kind)?;
    for record in attacked.records {
        let node = honest(world, stream, attacked.is_bad);
        others.store(world, node, record.target(), record.to_bytes());
        let end = world.now() + attacked.pause;
        others.run(world, end);
    }
    let end = world.now() + 40 * SECOND;
    others.run(world, end);
    let mix = gets(world, &mut others, stream, attacked);
    world.connect_all();
    let warm = gets(world, &mut others, stream, attacked);
    let row = |reach, figures| Row::new(kind, Goal::Value, reach, figures).case(attacked.case);
    Some([row("warm", warm), row("mix", mix)])
}

/// Gets of the records in turn, as ours are ([`super::runs::gets`]).
fn gets(world: &mut World, others: &mut Others, stream: &mut Stream, attacked: &Attacked<'_>) -> Figures {
    let mut asked = Vec::new();
    for number in 0..attacked.gets as usize {
        let which = number % attacked.records.len().max(1);
        let Some(record) = attacked.records.get(which) else { break };
        let node = honest(world, stream, attacked.is_bad);
        asked.push((others.get(world, node, record.target()), record.to_bytes()));
        let end = world.now() + 100 * MILLI;
        others.run(world, end);
    }
    for (operation, _) in &asked {
        others.finish(world, *operation);
    }
    let ended = asked.iter().filter_map(|(operation, right)| {
        let ended = others.ended.get(operation)?;
        let found = ended.value.as_ref() == Some(right);
        Some(Walked { found, ..ended.walked.clone() })
    });
    Figures::of(&ended.collect::<Vec<_>>())
}
