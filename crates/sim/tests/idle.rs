//! Nothing polls: a node that has nothing to do is woken by nobody, and one with peers by keep-alives and what is due.
//!
//! On a paused clock the one thread parks for each moment at which something is due, and for nothing else: so the runtime counts the moments, whoever set
//! the timers. A timer that is far off comes nearer in steps through tokio's wheel and so parks the thread up to four times, which is why the bars are compared
//! with what bare timers cost.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use peerage::{ChannelConfig, NodeBuilder, Raw};
use peerage_sim::{Failed, Link, SimNode, World, ensure, simulate};

/// The largest step of tokio's wheel below an hour, 262 s: four times the minute for which nothing may poll.
const STEP: Duration = Duration::from_millis(64 * 64 * 64);

/// How often the thread parked during the next whole step, and how many packets were sent in it.
async fn wakes(world: &World) -> (u64, u64) {
    let steps = world.now().as_millis().div_ceil(STEP.as_millis()) as u32;
    world.run_for(STEP * steps - world.now()).await;
    let metrics = tokio::runtime::Handle::current().metrics();
    let (parked, sent) = (metrics.worker_park_count(0), world.counters().sent);
    world.run_for(STEP).await;
    (metrics.worker_park_count(0) - parked, world.counters().sent - sent)
}

/// The same in a world that is empty but for this.
fn wakes_of_bare(timer: impl Future<Output = ()> + Send + 'static) -> u64 {
    simulate(1, async |world| {
        tokio::spawn(timer);
        world.run_for(Duration::from_secs(60)).await;
        wakes(&world).await.0
    })
}

async fn every(time: Duration) {
    let mut ticks = tokio::time::interval(time);
    loop {
        ticks.tick().await;
    }
}

/// Gives a node everything that could be awaited: channels with readers, a watcher, a protocol.
fn occupy(node: &SimNode) -> Result<(), Failed> {
    for config in
        [ChannelConfig::new("/idle/1"), ChannelConfig::control("/idle/2"), ChannelConfig::bulk("/idle/3")]
    {
        let channel = node.node().channel::<Raw>(config)?;
        tokio::spawn(async move { while channel.recv().await.is_some() {} });
    }
    Ok(())
}

/// a node without peers, with everything that it could wait for, is woken by nothing.
#[test]
fn a_node_without_peers_is_polled_by_nothing() -> Result<(), Failed> {
    let nothing = wakes_of_bare(std::future::pending());
    ensure!(wakes_of_bare(every(Duration::from_secs(60))) > nothing, "a timer a minute is not seen");
    simulate(1, async |world| {
        let node = world.node("alone", |builder| builder).await?;
        occupy(&node)?;
        world.run_for(Duration::from_secs(60)).await;
        let woken = wakes(&world).await.0;
        ensure!(
            woken == nothing,
            "the thread was woken {woken} times, and {nothing} times in an empty world"
        );
        Ok(())
    })
}

/// Where a wildcard is listened at, the machine's interfaces are looked at: every 5 s, and nothing more.
#[test]
fn a_node_that_listens_at_a_wildcard_looks_at_its_interfaces_and_does_nothing_else() -> Result<(), Failed> {
    let looks = wakes_of_bare(every(Duration::from_secs(5)));
    simulate(1, async |world| {
        let listening = |builder: NodeBuilder| builder.listen("/ip4/0.0.0.0/udp/4400/quic-v1");
        let node = world.describe("alone").dial_only().start(listening).await?;
        occupy(&node)?;
        world.run_for(Duration::from_secs(60)).await;
        let woken = wakes(&world).await.0;
        ensure!(
            woken.abs_diff(looks) <= 4,
            "the thread was woken {woken} times; {looks} times by a timer every 5 s"
        );
        Ok(())
    })
}

/// two nodes that have one another are woken by keep-alives and by what is due.
#[test]
fn nodes_with_peers_are_woken_by_keep_alives_and_due_times_only() -> Result<(), Failed> {
    simulate(1, async |world| {
        let (a, b) = pair(&world).await?;
        let (woken, packets) = wakes(&world).await;
        println!("{woken} wakes, {packets} packets");
        ensure!(a.is_connected_to(&b), "they are connected no more");
        // Every 4 s each side says something that the other one acknowledges; once a minute they may ask one another for others.
        let rounds = STEP.as_secs() / 4;
        ensure!((rounds * 3..=rounds * 4 + 60).contains(&packets), "{packets} packets in {rounds} rounds");
        let most = packets * 4 + 60;
        ensure!(woken <= most, "the thread was woken {woken} times for {packets} packets");
        // Somebody who polls, be it but twice a second, would be seen.
        tokio::spawn(every(Duration::from_millis(503)));
        let polled = wakes(&world).await.0;
        ensure!(polled > most, "a loop that polls passes unseen: {polled} wakes");
        Ok(())
    })
}

/// Two connected nodes with nothing to say, after the first minutes, in which paths are measured and others asked for.
async fn pair(world: &World) -> Result<(SimNode, SimNode), Failed> {
    world.default_link(Link::latency_ms(20));
    let a = world.node("a", |builder| builder).await?;
    let address = a.address();
    let b = world.node("b", move |builder| builder.persistent(&address)).await?;
    world.until("they are connected", Duration::from_secs(10), || a.is_connected_to(&b)).await?;
    occupy(&a)?;
    occupy(&b)?;
    let channel = b.node().channel::<Raw>(ChannelConfig::new("/idle/4"))?;
    let _far = a.node().channel::<Raw>(ChannelConfig::new("/idle/4"))?;
    channel.send(a.peer_id(), &Raw(bytes::Bytes::from_static(b"once"))).await?;
    world.run_for(Duration::from_secs(200)).await;
    Ok((a, b))
}
