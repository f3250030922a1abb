//! What an idle connection costs a node in memory, counted at the allocator.
//!
//! Each connection is as it is in a running overlay: admitted, identified both ways, and a channel has carried a message each way. Both sides live in this
//! process, so a figure is half of what a connection adds, once the nodes themselves are there.
//!
//!     cargo test --release -p peerage --test idle_memory -- --nocapture
//!
//! With `IDLE_MEMORY_PROFILE` set to anything, `dhat-heap.json` says which code holds the bytes. `peerage-bench memory` measures resident memory, and
//! each side for itself.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use bytes::Bytes;
use dhat::{HeapStats, Profiler};
use peerage::{Channel, ChannelConfig, Node, PeersConfig, Raw};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Connections that are counted.
const CONNECTIONS: usize = 40;
/// The most bytes that one may keep on a side.
// The post-quantum key exchange takes a second packet, for which quinn keeps a buffer of ten.
const MOST: f64 = if cfg!(feature = "post-quantum") { 59.0 } else { 45.0 } * 1024.0;
/// What is waited for comes in milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// How time passes on the paused clock. Loopback delivers at once, so that what one step has sent is there in the next.
const STEP: Duration = Duration::from_millis(5);
const STEPS: u32 = 100;

struct Member {
    node: Node,
    channel: Channel<Raw>,
}

impl Member {
    async fn start() -> Self {
        let peers = PeersConfig { max_inbound: 2 * CONNECTIONS, max_outbound: 0, ..PeersConfig::default() };
        let listen = "/ip4/127.0.0.1/udp/0/quic-v1";
        let node =
            Node::builder().network("memory").listen(listen).peers_config(peers).start().await.unwrap();
        let channel = node.channel(ChannelConfig::new("/memory/1")).unwrap();
        Self { node, channel }
    }

    async fn talk(&self, to: &Member) {
        let peer = to.node.peer_id();
        self.node.identify(peer).await.unwrap();
        self.channel.send(peer, &Raw(Bytes::from_static(&[7; 64]))).await.unwrap();
        assert_eq!(to.channel.recv().await.unwrap().0, self.node.peer_id());
    }
}

/// A hub to which all others are connected, and idle.
async fn connect(hub: &Member, others: &[Member]) {
    let address = hub.node.listen_addresses()[0].clone();
    for other in others {
        let talk = async {
            other.node.connect(&address).await.unwrap();
            other.talk(hub).await;
            hub.talk(other).await;
        };
        tokio::time::timeout(PATIENCE, talk).await.unwrap();
    }
    settle().await;
}

/// Lets all come to rest: nothing tells when the last acknowledgements came. The clock stands meanwhile, and goes on by a step whenever nobody has
/// anything to do, to twice the longest time that a peer may hold an acknowledgement back, and what the timers of loss add.
async fn settle() {
    tokio::time::pause();
    for _ in 0..STEPS {
        tokio::time::sleep(STEP).await;
    }
    tokio::time::resume();
}

#[tokio::test]
async fn an_idle_connection_of_a_node_keeps_little_memory() {
    let profiling = std::env::var_os("IDLE_MEMORY_PROFILE").is_some();
    let hub = Member::start().await;
    let mut others = Vec::new();
    for _ in 0..=CONNECTIONS {
        others.push(Member::start().await);
    }
    // A node's first connection pays for what it needs once, such as the beginnings of its tables.
    let first_hub = Member::start().await;
    connect(&first_hub, &others).await;
    connect(&hub, &others[..1]).await;
    if profiling {
        let profiler = Profiler::builder().trim_backtraces(Some(40)).build();
        connect(&hub, &others[1..]).await;
        // Written while all is alive.
        drop(profiler);
        return;
    }
    let _profiler = Profiler::builder().testing().build();
    let before = HeapStats::get();
    connect(&hub, &others[1..]).await;
    let after = HeapStats::get();
    let each = |after: usize, before: usize| (after as f64 - before as f64) / CONNECTIONS as f64 / 2.0;
    let bytes = each(after.curr_bytes, before.curr_bytes);
    let blocks = each(after.curr_blocks, before.curr_blocks);
    println!("{:.1} KiB in {blocks:.0} allocations per idle connection and side", bytes / 1024.0);
    assert!(bytes < MOST, "{bytes} bytes, and at most {MOST} are allowed");
}
