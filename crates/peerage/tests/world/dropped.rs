//! Calls of the DHT that are dropped while peers are asked, who say nothing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use peerage::dht::{DhtCall, Kind, StepKind};
use peerage::{Dht, DhtConfig};
use peerage_transport::Stream;
use peerage_wire::hello::Hello;
use peerage_wire::kad::Message;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::clock::{SECOND, pass, within};
use crate::network::World;
use crate::stranger::{Stranger, framed};

const KAD: &str = "/world/kad/1.0.0";
const PEERS: usize = 3;

/// Answers what is asked; of what `silent` says, it hands out the streams and says nothing.
async fn serve(stranger: Arc<Stranger>, silent: fn(&Message) -> bool, held: mpsc::Sender<Stream>) {
    loop {
        let mut stream = stranger.next(KAD).await;
        let Ok(Some(asked)) = stream.recv.read_message::<Message>(1 << 20).await else { continue };
        if silent(&asked) {
            let _ = held.send(stream).await;
        } else {
            let _ = stream.send.write_chunk(framed(asked.encode_to_vec())).await;
            let _ = stream.send.finish();
        }
    }
}

async fn nothing_under_way(dht: &Dht) -> bool {
    let standing = dht.standing().await.unwrap();
    (standing.operations, standing.requests) == (0, 0)
}

/// Drops a call once so many peers have been asked what they don't answer.
async fn drop_midway<T: Send + 'static>(
    silent: fn(&Message) -> bool,
    least: usize,
    call: impl FnOnce(&Dht) -> DhtCall<T>,
) {
    let world = World::new();
    let config = DhtConfig::default().any_value("any");
    let builder = world.machine(1, &["10.0.0.1"]).node().max_outbound(0).dht(config);
    let node = builder.listen("/ip4/10.0.0.1/udp/4001/quic-v1").start().await.unwrap();
    let (hold, mut held) = mpsc::channel(100);
    for number in 0..PEERS {
        let stranger = Stranger::dial(&world, &format!("10.0.{number}.2"), &node).await;
        stranger.meet(1, &Hello { services: vec![KAD.into()], ..stranger.hello(1) }).await;
        tokio::spawn(serve(Arc::new(stranger), silent, hold.clone()));
    }
    let dht = node.dht();
    within("peers that serve", async {
        while dht.closest("elsewhere").await.map_or(0, |(_, report)| report.counts.answered) < PEERS as u32
            || !nothing_under_way(&dht).await
        {
            pass(SECOND / 10).await;
        }
    })
    .await;
    let (call, mut steps) = call(&dht).watch();
    let mut looking = call.into_future();
    let mut streams = Vec::new();
    let asking = async {
        while streams.len() < least {
            streams.push(held.recv().await.unwrap());
        }
        while !matches!(steps.next().await.unwrap().what, StepKind::Asked { .. }) {}
    };
    tokio::select! {
        biased;
        _ = &mut looking => panic!("it is over before anybody was silent"),
        () = within("questions", asking) => {}
    }
    let standing = dht.standing().await.unwrap();
    assert!(standing.operations >= 1 && standing.requests >= least, "{standing:?}");
    let start = Instant::now();
    drop(looking);
    within("its end", async {
        while !nothing_under_way(&dht).await {
            pass(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert!(start.elapsed() < SECOND / 10, "the driver is told: {:?}", start.elapsed());
    // Who was asked just now could still say something of use, and is listened to for a moment.
    for stream in &mut streams {
        let _ = within("the end of a stream", stream.recv.read_chunk(1)).await;
    }
    assert!(start.elapsed() < 5 * SECOND, "{:?}", start.elapsed());
    let published = dht.published().await.unwrap();
    assert!(published.iter().all(|one| one.place.kind() == Kind::Endpoint), "{published:?}");
    node.close().await;
}

fn holds(bytes: Option<&Bytes>, part: &[u8]) -> bool {
    bytes.is_some_and(|bytes| bytes.windows(part.len()).any(|window| window == part))
}

#[tokio::test(start_paused = true)]
async fn a_lookup_that_is_dropped_while_peers_are_silent_leaves_nothing_behind() {
    let silent = |asked: &Message| asked.key.as_deref() == Some(b"there");
    drop_midway(silent, PEERS, |dht| dht.closest("there")).await;
}

#[tokio::test(start_paused = true)]
async fn a_put_that_is_dropped_while_it_looks_for_holders_leaves_nothing_behind() {
    let silent = |asked: &Message| asked.key.as_deref() == Some(b"/any/thing");
    drop_midway(silent, PEERS, |dht| dht.put_raw("/any/thing", "value")).await;
}

#[tokio::test(start_paused = true)]
async fn a_put_that_is_dropped_while_holders_are_silent_leaves_nothing_behind() {
    let silent = |asked: &Message| {
        let record = asked.record.as_ref();
        holds(record.and_then(|record| record.value.as_ref()), b"blue")
    };
    drop_midway(silent, 1, |dht| dht.put("colour", "blue")).await;
}
