//! Who goes first on a full path: questions and answers of the DHT, behind ordinary channels and before bulk.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use peerage::{ChannelConfig, DhtConfig, Raw};
use peerage_sim::{Failed, Link, SimNode, World, ensure, simulate};

const SECOND: Duration = Duration::from_secs(1);
const CHANNEL: &str = "/test/channel/1";
/// Bits a second, and what a packet is under way on an idle path.
const RATE: u64 = 100_000_000;
const ONE_WAY_MS: u64 = 5;
/// Nearly a second's worth, and those that come first, until the path is full.
const MESSAGES: usize = 160;
const FIRST: usize = 20;
const MESSAGE_BYTES: usize = 64 * 1024;

/// Waits until a node would ask the other.
async fn knows(world: &World, node: &SimNode) -> Result<(), Failed> {
    for _ in 0..100 {
        if node.node().dht().standing().await?.usable > 0 {
            return Ok(());
        }
        world.run_for(SECOND / 10).await;
    }
    Err(Failed::new(format!("{} knows nobody", node.name())))
}

/// How many messages of a channel from here to there have come when a lookup is over that began with them: one of here, whose question goes the
/// same way, or one of there, whose answer does.
async fn before_the_dht(world: &World, config: ChannelConfig, asked_here: bool) -> Result<usize, Failed> {
    world.default_link(Link::latency_ms(ONE_WAY_MS).bandwidth(RATE, 1 << 20));
    let there = world.node("there", |builder| builder.dht(DhtConfig::default())).await?;
    let address = there.address();
    let dial = move |builder: peerage::NodeBuilder| builder.dht(DhtConfig::default()).persistent(&address);
    let here = world.node("here", dial).await?;
    world.until("both are connected", 10 * SECOND, || here.is_connected_to(&there)).await?;
    knows(world, &here).await?;
    knows(world, &there).await?;
    // Nothing of the nodes' own is under way.
    world.run_for(20 * SECOND).await;

    let sending = here.node().channel::<Raw>(config.clone())?;
    let receiving = there.node().channel::<Raw>(config)?;
    let (came, to) = (Arc::new(AtomicUsize::new(0)), there.peer_id());
    let counted = came.clone();
    tokio::spawn(async move {
        while receiving.recv().await.is_some() {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    let message = Raw(Bytes::from(vec![7; MESSAGE_BYTES]));
    tokio::spawn(async move {
        for _ in 0..MESSAGES {
            let _ = sending.send(to, &message).await;
        }
        // The handle is held until all has come.
        std::future::pending::<()>().await;
    });
    world.until("a full path", 5 * SECOND, || came.load(Ordering::Relaxed) >= FIRST).await?;
    let asker = if asked_here { &here } else { &there };
    let (_, report) = asker.node().dht().closest("somewhere").await?;
    ensure!(report.counts.answered == 1, "{report}");
    let before = came.load(Ordering::Relaxed);
    world.until("all of them", 5 * SECOND, || came.load(Ordering::Relaxed) == MESSAGES).await?;
    Ok(before)
}

/// Both channels go behind those without a priority of their own: a DHT that had none would wait for neither.
fn waits_for_the_upper_channel(asked_here: bool) -> Result<(), Failed> {
    let before = |priority| {
        let config = ChannelConfig::new(CHANNEL).priority(priority);
        simulate(41, async move |world| before_the_dht(&world, config, asked_here).await)
    };
    let (above, below) = (before(-1)?, before(-7)?);
    ensure!(above >= below + 5, "{above} messages came before it, and {below}");
    Ok(())
}

#[test]
fn questions_of_the_dht_go_behind_ordinary_channels_and_before_bulk() -> Result<(), Failed> {
    waits_for_the_upper_channel(true)
}

#[test]
fn answers_of_the_dht_go_behind_ordinary_channels_and_before_bulk() -> Result<(), Failed> {
    waits_for_the_upper_channel(false)
}
