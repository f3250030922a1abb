//! The other side: whole nodes on a network of the same round trips, with QUIC, hellos, the peer manager and its visits.

use std::net::IpAddr;
use std::time::Duration;

use futures::future::join_all;
use peerage::{Cause, Direction, PeersConfig};

use super::*;
use crate::net::{HostId, Latency, Link};
use crate::run::simulate;
use crate::world::{SimNode, World};

/// Ordinary connections that a node dials. The default of ten, with those that come in, would be a fifth of a hundred nodes.
const OUTBOUND: usize = 3;

/// Runs it. Beside what came of it: the pairs between which there is an ordinary connection.
pub(super) fn run(plan: &Plan) -> Result<(Side, Vec<(u32, u32)>), Failed> {
    simulate(plan.seed, async |world| {
        let hosts = build(&world, plan)?;
        let mut nodes = Vec::new();
        for (place, host) in (0..).zip(hosts) {
            until(&world, place * JOIN_EVERY).await;
            nodes.push(start(&world, plan, &nodes, host).await?);
        }
        for store in &plan.stores {
            until(&world, store.at).await;
            let dht = nodes[store.publisher as usize].node().dht();
            let (_, call) = dht.put_immutable(store.content.clone());
            tokio::spawn(call.into_future());
        }
        until(&world, plan.ready).await;
        let kept = ordinary(plan, &nodes).await;
        let mut looked = Vec::new();
        for lookup in &plan.lookups {
            until(&world, lookup.at).await;
            looked.push(tokio::spawn(look(
                world.clone(),
                nodes[lookup.asker as usize].clone(),
                ask(plan, lookup),
            )));
        }
        let done = join_all(looked).await.into_iter().map(|done| done.ok().flatten()).collect();
        until(&world, plan.end).await;
        let hash = u64::from_str_radix(world.hash().get(..16).unwrap_or_default(), 16).unwrap_or_default();
        Ok((Side { done, hash, broken: None }, kept))
    })
}

/// A host for each node, at the address by which the loop names it, and a link for each two.
fn build(world: &World, plan: &Plan) -> Result<Vec<HostId>, Failed> {
    let ip = |contact: &Contact| -> Option<IpAddr> { Some(contact.addresses().first()?.socket_addr()?.ip()) };
    let net = world.net();
    let host = |contact: &Contact| ip(contact).map(|ip| net.host_at(&[ip]));
    let hosts: Option<Vec<HostId>> = plan.contacts.iter().map(host).collect();
    let hosts = hosts.ok_or_else(|| Failed::new("a node of the plan has no address"))?;
    for (a, from) in (0u32..).zip(&hosts) {
        for (b, to) in (0u32..).zip(&hosts).take(a as usize) {
            let way = Duration::from_micros(plan.trips.round_trip(a, b) / 2);
            net.link(*from, *to, Link { latency: Latency::Constant(way), ..Link::default() });
        }
    }
    Ok(hosts)
}

async fn start(world: &World, plan: &Plan, there: &[SimNode], host: HostId) -> Result<SimNode, Failed> {
    let number = there.len();
    let seeds: Vec<String> =
        plan.first[number].iter().map(|other| there[*other as usize].address()).collect();
    let (config, visit_idle) = (plan.config.clone(), Duration::from_micros(plan.visit_idle));
    let node = world.describe(format!("n{number}")).on(host).key(key_of(plan.seed, number as u32));
    node.start(move |builder| {
        let mut dht = peerage::DhtConfig::default();
        dht.limits = config.clone();
        let peers = PeersConfig { max_outbound: OUTBOUND, visit_idle, ..PeersConfig::default() };
        let builder = builder.network(NETWORK).peers_config(peers).dht(dht);
        seeds.iter().fold(builder, |builder, seed| builder.seed(seed))
    })
    .await
}

/// The pairs whose connection is no visit, by the word of the one who dialled: it is the one who ends visits.
async fn ordinary(plan: &Plan, nodes: &[SimNode]) -> Vec<(u32, u32)> {
    let mut kept = Vec::new();
    for (number, node) in (0u32..).zip(nodes) {
        let peers = node.node().peers();
        for peer in peers.connected() {
            let story = peers.why(peer.peer_id).await;
            let visits = story.is_some_and(|story| story.cause == Cause::Visit);
            let other = plan.contacts.iter().position(|contact| *contact.peer() == peer.peer_id);
            if let Some(other) = other.filter(|_| peer.direction == Direction::Outbound && !visits) {
                kept.push((number, other as u32));
            }
        }
    }
    kept
}

enum Ask {
    Get([u8; 32]),
    Closest([u8; 32]),
}

fn ask(plan: &Plan, lookup: &Lookup) -> Ask {
    match &lookup.what {
        What::Get(value) => match Place::of_content(&plan.stores[*value].content) {
            Place::Immutable { hash } => Ask::Get(hash),
            _ => Ask::Get([0; 32]),
        },
        What::Closest(name) => Ask::Closest(*name),
    }
}

/// A lookup as its caller sees it.
async fn look(world: World, node: SimNode, ask: Ask) -> Option<Done> {
    let (dht, start) = (node.running()?.dht(), world.now());
    let (found, closest, report) = match ask {
        Ask::Get(hash) => match dht.get_immutable(hash).await {
            Ok((_, report)) => (true, Vec::new(), report),
            Err(peerage::DhtError::NotFound { report }) => (false, Vec::new(), *report),
            Err(_) => return None,
        },
        Ask::Closest(name) => {
            let (closest, report) = dht.closest(name).await.ok()?;
            (true, closest, report)
        }
    };
    let took = (world.now() - start).as_micros() as Micros;
    Some(Done { took, hops: report.hops, counts: report.counts, found, closest })
}

/// Lets the world run until a time since its start.
async fn until(world: &World, at: Micros) {
    world.run_for(Duration::from_micros(at).saturating_sub(world.now())).await;
}
