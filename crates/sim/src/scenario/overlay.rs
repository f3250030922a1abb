//! Overlays that form, break and come together again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use peerage::{NodeBuilder, PeersConfig};

use crate::ensure;
use crate::failed::Failed;
use crate::net::{Link, peak_dials};
use crate::scenario::{Plan, Report, count_events, is_disconnect, parts, seconds};
use crate::world::{SimNode, World};

/// Nodes that know one seed find one another.
pub(super) async fn forms(world: World, plan: Plan) -> Result<Report, Failed> {
    let nodes = overlay(&world, plan.size(50, 100)).await?;
    let took = world.until("an overlay of all nodes", FORMED_WITHIN, || parts(&nodes) == 1).await?;
    world.run_for(FORMED_WITHIN - world.now()).await;
    let degrees: Vec<_> = nodes.iter().map(|node| node.connected().len()).collect();
    let (least, most) = (degrees.iter().min().copied(), degrees.iter().max().copied());
    ensure!(parts(&nodes) == 1, "the overlay fell into {} parts", parts(&nodes));
    ensure!(least >= Some(1), "a node is isolated after {FORMED_WITHIN:?}");
    let mean = degrees.iter().sum::<usize>() as f64 / nodes.len() as f64;
    Ok(vec![
        ("seconds", took.as_secs_f64()),
        ("least degree", least.unwrap_or(0) as f64),
        ("mean degree", mean),
        ("largest degree", most.unwrap_or(0) as f64),
        ("dials", world.dials().len() as f64),
    ])
}

/// Two halves don't hear of each other for longer than any connection lives without a packet.
pub(super) async fn partition(world: World, plan: Plan) -> Result<Report, Failed> {
    let nodes = overlay(&world, plan.size(12, 40)).await?;
    world.until("an overlay of all nodes", FORMED_WITHIN, || parts(&nodes) == 1).await?;
    world.run_for(seconds(5)).await;
    let (left, right) = nodes.split_at(nodes.len() / 2);
    let (before, dialled) = (world.counters(), world.dials().len());
    if plan.faults {
        world.partition(&[left, right]);
    }
    world.run_for(seconds(45)).await;
    let cut = world.counters().since(&before).cut;
    ensure!(cut > 0, "the partition stopped no packet");
    for (side, others) in [(left, right), (right, left)] {
        let across = side.iter().flat_map(|node| others.iter().filter(|other| node.is_connected_to(other)));
        ensure!(across.count() == 0, "a connection outlived the partition");
        ensure!(parts(side) == 1, "one half fell into {} parts", parts(side));
    }
    world.heal();
    let took = world.until("one overlay after the partition", seconds(60), || parts(&nodes) == 1).await?;
    let redials = world.dials().len() - dialled;
    ensure!(redials > 0, "nobody dialled again");
    Ok(vec![("healed in s", took.as_secs_f64()), ("cut packets", cut as f64), ("redials", redials as f64)])
}

/// All peers lose their hub at once and want it back, and so does the hub, when it is started again.
pub(super) async fn hub(world: World, plan: Plan) -> Result<Report, Failed> {
    let count = plan.size(100, 200);
    world.default_link(Link::between_ms(5, 80));
    let known: Arc<Mutex<Vec<String>>> = Arc::default();
    let wanted = known.clone();
    let configure = move |builder: NodeBuilder| {
        let wanted = wanted.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.iter().fold(builder.max_inbound(count), |builder, address| builder.persistent(address))
    };
    let hub = world.node("hub", configure).await?;
    let address = hub.address();
    for number in 0..count {
        let address = address.clone();
        let peer = world.node(format!("p{number}"), move |b| b.persistent(&address).max_outbound(0)).await?;
        known.lock().unwrap_or_else(PoisonError::into_inner).push(peer.address());
    }
    let all_there = || hub.connected().len() == count;
    world.until("all peers are at the hub", seconds(60), all_there).await?;
    let peers: Vec<SimNode> = world.nodes().into_iter().skip(1).collect();
    let dialled = world.dials().len();
    if plan.faults {
        world.crash(&hub);
    }
    world.run_for(OUTAGE).await;
    if plan.faults {
        world.restart(&hub).await?;
    }
    let took = world.until("all peers are back at the hub", seconds(60), all_there).await?;
    let lost = count_events(&peers, is_disconnect);
    ensure!(lost >= count, "only {lost} of {count} peers lost the hub");
    let dials = world.dials().split_off(dialled);
    ensure!(dials.len() >= count, "only {} redials for {count} peers", dials.len());
    let peak_of = |node: &SimNode| {
        let own: Vec<_> = dials.iter().filter(|dial| dial.from == node.host()).copied().collect();
        peak_dials(&own, seconds(1))
    };
    let (at_hub, by_hub) = (peak_dials(&dials, seconds(1)), peak_of(&hub));
    let by_peer = peers.iter().map(peak_of).max().unwrap_or(0);
    // Were all of them to dial in step, as often as each one may, this would be three for each peer.
    let spread = count * 3 / 2;
    ensure!(at_hub <= spread, "{at_hub} dials within one second: spread over time they are at most {spread}");
    let config = PeersConfig::default();
    let budget = (config.dial_burst + config.dials_per_second).ceil() as usize;
    ensure!(by_hub <= budget, "the hub dialled {by_hub} times within one second: its budget is {budget}");
    ensure!(by_peer <= 3, "one peer dialled {by_peer} times within one second");
    Ok(vec![
        ("back in s", took.as_secs_f64()),
        ("redials", dials.len() as f64),
        ("most dials to the hub in a second", at_hub as f64),
        ("most dials by the hub in a second", by_hub as f64),
        ("lost connections", lost as f64),
    ])
}

/// Each node is down for a moment, one after the other.
pub(super) async fn rolling(world: World, plan: Plan) -> Result<Report, Failed> {
    let nodes = overlay(&world, plan.size(10, 30)).await?;
    world.until("an overlay of all nodes", FORMED_WITHIN, || parts(&nodes) == 1).await?;
    // Long enough for what was learned to be on the disks.
    world.run_for(seconds(10)).await;
    let dialled = world.dials().len();
    let mut slowest = Duration::ZERO;
    for (number, node) in nodes.iter().enumerate() {
        if plan.faults {
            match number % 2 {
                0 => world.crash(node),
                _ => drop(world.stop(node).await),
            }
            world.run_for(seconds(3)).await;
            world.restart(node).await?;
        }
        let what = format!("one overlay after the restart of {}", node.name());
        slowest = slowest.max(world.until(&what, seconds(60), || parts(&nodes) == 1).await?);
    }
    let lost = count_events(&nodes, is_disconnect);
    ensure!(lost >= nodes.len(), "{lost} lost connections for {} restarts", nodes.len());
    let redials = world.dials().len() - dialled;
    ensure!(redials >= nodes.len(), "{redials} redials for {} restarts", nodes.len());
    Ok(vec![
        ("slowest return in s", slowest.as_secs_f64()),
        ("lost connections", lost as f64),
        ("redials", redials as f64),
    ])
}

/// Nodes that know the first of them.
async fn overlay(world: &World, count: usize) -> Result<Vec<SimNode>, Failed> {
    world.default_link(Link::between_ms(5, 80));
    let address = world.node("seed", |builder| builder).await?.address();
    for number in 1..count {
        let address = address.clone();
        world.node(format!("n{number}"), move |builder| builder.seed(&address)).await?;
    }
    Ok(world.nodes())
}

/// How long an overlay may take to form.
const FORMED_WITHIN: Duration = seconds(30);
/// How long the hub is down: its peers notice after 30 s without a packet, and dial for some seconds in vain.
const OUTAGE: Duration = seconds(40);
