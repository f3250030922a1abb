//! What nodes leave in memory when they are gone, counted at the allocator: nothing that grows with their number.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use bytes::Bytes;
use dhat::{HeapStats, Profiler};
use peerage::{ChannelConfig, Node, Raw, ServeError};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// What is waited for comes in milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

async fn start() -> Node {
    Node::builder().network("memory").listen("/ip4/127.0.0.1/udp/0/quic-v1").start().await.unwrap()
}

/// Pairs of nodes meet, talk, and end: one node is closed, one only dropped, and two outlive the runtime that they ran on.
async fn live_and_end() -> [Node; 2] {
    let left = meet().await;
    let [closed, dropped] = meet().await;
    drop(dropped);
    closed.close().await;
    left
}

async fn meet() -> [Node; 2] {
    let (first, second) = (start().await, start().await);
    let here = first.channel::<Raw>(ChannelConfig::new("/memory/1")).unwrap();
    let there = second.channel::<Raw>(ChannelConfig::new("/memory/1")).unwrap();
    // As applications do: what serves has the node at hand. Closing it lets go of both.
    let node = first.clone();
    let answer = move |_, question: Raw| {
        let known = node.peers().connected().len();
        async move { if known > 0 { Ok(question) } else { Err(ServeError::new(100, "nobody is here")) } }
    };
    first.serve("/memory/ask/1", answer).unwrap();
    let peer = second.connect(&first.listen_addresses()[0]).await.unwrap();
    there.send_confirmed(peer, &Raw(Bytes::from_static(b"hello"))).await;
    assert_eq!(here.recv().await.unwrap().0, second.peer_id());
    second.request::<Raw, Raw>(peer, "/memory/ask/1", &Raw(Bytes::from_static(b"x"))).await.unwrap();
    [first, second]
}

#[test]
fn nodes_that_are_gone_leave_nothing_in_memory() {
    let profiling = std::env::var_os("IDLE_MEMORY_PROFILE").is_some();
    let life = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let left = runtime.block_on(async { tokio::time::timeout(PATIENCE, live_and_end()).await.unwrap() });
        drop(runtime);
        // Its handler has the other handle.
        left[0].stop_serving("/memory/ask/1");
    };
    // What is made once and for all: tables of libraries, of the runtime, of threads.
    for _ in 0..3 {
        life();
    }
    if profiling {
        let profiler = Profiler::builder().trim_backtraces(Some(40)).build();
        (0..10).for_each(|_| life());
        drop(profiler);
        return;
    }
    let _profiler = Profiler::builder().testing().build();
    let before = HeapStats::get();
    const LIVES: usize = 10;
    (0..LIVES).for_each(|_| life());
    let after = HeapStats::get();
    let each = (after.curr_bytes as f64 - before.curr_bytes as f64) / LIVES as f64;
    println!("{each:.0} bytes stay of each life");
    assert!(each < 2048.0, "{each} bytes stay of every four nodes that are gone");
}
