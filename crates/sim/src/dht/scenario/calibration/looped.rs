//! The loop's side: machines, whose messages take the round trips of the network and of dials.

use std::collections::BTreeMap;

use peerage_dht::record::EndpointBody;
use peerage_dht::{Class, Operation, Options, Source, Target};

use super::super::super::machines::{Happened, World};
use super::*;

/// So long after its start a node publishes where it can be reached.
const PUBLISH_AFTER: Micros = 2 * SECOND;

/// What is to be done at a time.
enum Deed<'a> {
    Start(u32),
    Publish(u32),
    Keep,
    Store(&'a super::Store),
    Look(usize),
}

/// Runs it. `kept` are the pairs between which an ordinary connection stands.
pub(super) fn run(plan: &Plan, kept: &[(u32, u32)], checks: bool) -> Side {
    let setting = Setting {
        config: plan.config.clone(),
        records: Some(Arc::new(RecordsConfig::default())),
        keyed: true,
        visit_idle: plan.visit_idle,
        checks,
        progress: plan.progress.clone(),
        ..Setting::new(plan.nodes, plan.seed)
    };
    let mut side = Looped { plan, world: World::new(setting), looked: BTreeMap::new(), done: Vec::new() };
    side.done.resize(plan.lookups.len(), None);
    for (at, deed) in deeds(plan) {
        side.run_until(at);
        side.carry_out(&deed, kept);
    }
    side.run_until(plan.end);
    let broken = side.world.broken_at_the_end();
    Side { hash: side.world.trace.hash(), done: side.done, broken }
}

fn deeds(plan: &Plan) -> Vec<(Micros, Deed<'_>)> {
    let mut deeds = vec![(plan.ready, Deed::Keep)];
    for node in 0..plan.nodes as u32 {
        let at = u64::from(node) * JOIN_EVERY;
        deeds.push((at, Deed::Start(node)));
        deeds.push((at + PUBLISH_AFTER, Deed::Publish(node)));
    }
    deeds.extend(plan.stores.iter().map(|store| (store.at, Deed::Store(store))));
    let lookups = plan.lookups.iter().enumerate();
    deeds.extend(lookups.map(|(number, lookup)| (lookup.at, Deed::Look(number))));
    deeds.sort_by_key(|(at, _)| *at);
    deeds
}

struct Looped<'a> {
    plan: &'a Plan,
    world: World,
    /// Which lookup each operation is.
    looked: BTreeMap<u64, usize>,
    done: Vec<Option<Done>>,
}

impl Looped<'_> {
    fn run_until(&mut self, end: Micros) {
        while let Some(happened) = self.world.run_until(end) {
            let Happened::Ended(ended) = happened else { continue };
            let Some(number) = self.looked.remove(&ended.operation) else { continue };
            let outcome = *ended.outcome;
            self.done[number] = Some(Done {
                took: ended.took,
                hops: outcome.hops,
                counts: outcome.counts,
                found: !outcome.values.is_empty(),
                closest: outcome.closest,
            });
        }
    }

    fn carry_out(&mut self, deed: &Deed<'_>, kept: &[(u32, u32)]) {
        match deed {
            Deed::Start(node) => {
                let first = self.plan.first[*node as usize].iter();
                let known = first.map(|other| self.plan.contacts[*other as usize].clone()).collect();
                self.world.start_node(*node, known, Source::Bootstrap);
            }
            Deed::Publish(node) => {
                let contact = &self.plan.contacts[*node as usize];
                let (peer, addresses) = (*contact.peer(), contact.addresses());
                let body = EndpointBody { addresses, mailbox: None, protocols: Vec::new() }.encode();
                self.world.publish(*node, Place::Endpoint { peer }, 1, body, Class::Normal);
            }
            Deed::Keep => kept.iter().for_each(|(a, b)| self.world.keep_link(*a, *b)),
            Deed::Store(store) => {
                let place = Place::of_content(&store.content);
                self.world.publish(store.publisher, place, 0, store.content.clone(), Class::Interactive);
            }
            Deed::Look(number) => self.look(*number),
        }
    }

    fn look(&mut self, number: usize) {
        let lookup = &self.plan.lookups[number];
        let wanted = match &lookup.what {
            What::Get(value) => {
                let target = self.world.target_of(&Place::of_content(&self.plan.stores[*value].content));
                target.map(|target| Operation::Get { target })
            }
            What::Closest(name) => Target::new(name).map(|target| Operation::Closest { target }),
        };
        if let Some(wanted) = wanted {
            let operation = self.world.start(lookup.asker, wanted, Options::default());
            self.looked.insert(operation, number);
        }
    }
}
