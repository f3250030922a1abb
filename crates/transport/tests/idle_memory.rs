//! What an idle connection costs in memory, ours beside bare quinn's, counted at the allocator.
//!
//! Each connection is as it is in a running node: admitted on both sides, with one stream open that was negotiated and has carried a message. Bare quinn
//! has its default limits, the same certificates, and a stream that has carried as much. Both sides live in this process, so a figure is half of
//! what a connection adds.
//!
//!     cargo test --release -p peerage-transport --test idle_memory -- --nocapture
//!
//! With `IDLE_MEMORY_PROFILE=ours` (or `bare`) set to a connection kind, only that one runs, and `dhat-heap.json` says which code holds the bytes.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "it/support.rs"]
#[allow(dead_code, unused_imports)]
mod support;

use std::any::Any;

use dhat::{HeapStats, Profiler};

use crate::support::*;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const CONNECTIONS: usize = 200;

/// What must stay alive for the connections to, and the heap after the first of them: endpoints have buffers of their own.
struct Kept {
    alive: Vec<Box<dyn Any>>,
    first: Option<HeapStats>,
}

impl Kept {
    fn new() -> Self {
        Self { alive: Vec::with_capacity(2 * CONNECTIONS), first: None }
    }

    fn push(&mut self, connection: impl Any) {
        self.alive.push(Box::new(connection));
        // There is none while a profile is written.
        if self.first.is_none() && std::env::var("IDLE_MEMORY_PROFILE").is_err() {
            self.first = Some(HeapStats::get());
        }
    }
}

async fn ours() -> Kept {
    let (dialler, listener) = (endpoint(|_| ()).await, endpoint(|_| ()).await);
    let mut kept = Kept::new();
    for _ in 0..=CONNECTIONS {
        let pair = connect(dialler.clone(), listener.clone()).await;
        pair.out.admit();
        pair.inn.admit();
        let mut near = pair.out.open_lazy("/channel/1").await.unwrap();
        near.send.write_all(&[1; 100]).await.unwrap();
        let inbound = soon(pair.inn.accept_stream()).await.unwrap();
        let (_, mut far) = inbound.negotiate(|_| true, PATIENCE).await.unwrap();
        soon(far.recv.read_chunk(100)).await.unwrap();
        soon(near.recv.negotiated()).await.unwrap();
        kept.push((pair, near, far));
    }
    kept
}

async fn bare() -> Kept {
    let (dialler, listener) = (Foreign::honest(), Foreign::honest());
    let mut kept = Kept::new();
    for _ in 0..=CONNECTIONS {
        let (out, inn) = tokio::join!(dialler.start_dial(listener.address()), async {
            listener.quinn.accept().await.unwrap().await
        });
        let (out, inn) = (out.unwrap(), inn.unwrap());
        let mut near = out.open_bi().await.unwrap();
        near.0.write_all(&[1; 100]).await.unwrap();
        let mut far = soon(inn.accept_bi()).await.unwrap();
        soon(far.1.read_chunk(100, true)).await.unwrap();
        kept.push((out, inn, near, far));
    }
    kept.push((dialler, listener));
    kept
}

/// Bytes and allocations that each connection keeps, on each side.
fn measure(kind: &str, connections: impl Future<Output = Kept>) -> (f64, f64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let kept = runtime.block_on(connections);
    let after = HeapStats::get();
    let before = kept.first.as_ref().unwrap();
    let per_side = |after: usize, before: usize| (after as f64 - before as f64) / CONNECTIONS as f64 / 2.0;
    let bytes = per_side(after.curr_bytes, before.curr_bytes);
    let blocks = per_side(after.curr_blocks, before.curr_blocks);
    println!("{kind}: {:.1} KiB in {blocks:.0} allocations per idle connection and side", bytes / 1024.0);
    (bytes, blocks)
}

#[test]
fn an_idle_connection_needs_less_memory_than_bare_quinns() {
    match std::env::var("IDLE_MEMORY_PROFILE").as_deref() {
        Ok(kind) => {
            let profiler = Profiler::builder().trim_backtraces(Some(24)).build();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let kept = runtime.block_on(async { if kind == "bare" { bare().await } else { ours().await } });
            // Written while all is alive.
            drop(profiler);
            drop(kept);
        }
        Err(_) => {
            let _profiler = Profiler::builder().testing().build();
            let (ours, _) = measure("ours", ours());
            let (bare, _) = measure("bare quinn", bare());
            // QUIC's send buffer keeps the size of the largest burst, and the hellos of `post-quantum` are sent as one.
            let most = if cfg!(feature = "post-quantum") { 48.0 } else { 35.8 };
            assert!(ours < most * 1024.0, "ours: {ours} bytes");
            assert!(cfg!(feature = "post-quantum") || ours < bare, "ours {ours}, bare quinn {bare}");
        }
    }
}
