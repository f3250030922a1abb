//! Full new connections, to the first byte that answers.

use std::time::Instant;

use tokio::task::JoinSet;

use crate::drive::{CONNECT_DEADLINE, Came, Drive, all, connect, done, share};
use crate::report::Done;
use crate::usage::Usage;
use crate::{Client, Dialler, Latency, Outcome, Peer, within};

/// Each lane connects, asks, disconnects, and again, from an endpoint or node of its own.
pub(crate) async fn run<P: Peer>(peer: &P, what: &Drive) -> Outcome<Done> {
    let lanes = what.work.lanes();
    let mut diallers = Vec::new();
    for _ in 0..lanes {
        diallers.push(within("the start of a client", CONNECT_DEADLINE, peer.dialler()).await?);
    }
    let mut negotiated = Default::default();
    for (lane, dialler) in diallers.iter().enumerate() {
        // What is made once, before the first connection, is no part of a handshake.
        let client = connect(dialler, what.address(0)?).await?;
        within("the first answer", CONNECT_DEADLINE, client.first_answer()).await?;
        negotiated = client.negotiated();
        client.close().await;
        let count = share(what.amount, lanes, lane as u64);
        within("the start of further clients", CONNECT_DEADLINE, dialler.prepare(count)).await?;
    }
    let usage = Usage::now(what.server);
    let mut tasks = JoinSet::new();
    for (lane, dialler) in diallers.into_iter().enumerate() {
        let count = share(what.amount, lanes, lane as u64);
        let address = what.address(lane)?.to_owned();
        tasks.spawn(async move {
            one_after_another(&dialler, &address, count).await.map(|times| (dialler, times))
        });
    }
    let lanes = all(tasks).await?;
    let times: Vec<_> = lanes.iter().flat_map(|(_, times)| times.iter().copied()).collect();
    let came = Came { amount: what.amount, latency: Latency::of(times), negotiated, ..Came::default() };
    Ok(done(what, usage, came))
}

async fn one_after_another<D: Dialler>(
    dialler: &D,
    address: &str,
    count: u64,
) -> Outcome<Vec<std::time::Duration>> {
    let mut times = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let start = Instant::now();
        let client = connect(dialler, address).await?;
        within("the first answer", CONNECT_DEADLINE, client.first_answer()).await?;
        times.push(start.elapsed());
        client.close().await;
    }
    Ok(times)
}
