//! Resident memory of a node under a flood, as the system counts it. The attackers are a process of their own: this test's program, started by it.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::any::Any;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use peerage::{Channel, ChannelConfig, MemoryLimits, Node, PeersConfig, Raw};
use peerage_transport::{CloseCode, TransportSettings};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

mod common;
#[allow(dead_code)]
#[path = "channels/support.rs"]
mod support;

use common::{LIMIT, builder, within};
use support::{Handmade, framed};

const NAME: &str = "/test/resident/1";
const MIB: usize = 1 << 20;
/// The configured line.
const NODE_BYTES: usize = 4 * MIB;
/// What one connection may hold unread below the channels: QUIC's own window, which is configured, too.
const WINDOW: usize = MIB;
/// Peers that are connected while it is measured.
const STAY: usize = 8;
/// Beside what is accounted for: buffers that grow by doubling, QUIC's state of each connection, and what the allocator keeps of what was given back.
const SLACK: usize = NODE_BYTES;
/// What is not taken in so soon will not be.
const PATIENCE: Duration = Duration::from_millis(250);
/// Whom the attackers attack, and how many there are of each kind; set in their process only.
const TARGET: &str = "PEERAGE_TEST_TARGET";
/// What they say when all is sent.
const SENT: &str = "all is sent";

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

async fn start() -> (Node, Channel<Raw>) {
    let settings = TransportSettings {
        peer_window_bytes: WINDOW as u32,
        stream_window_bytes: WINDOW as u32 / 2,
        ..TransportSettings::default()
    };
    let peers = PeersConfig { max_inbound: 1000, ..PeersConfig::default() };
    let memory = MemoryLimits::default().node_bytes(NODE_BYTES);
    let node =
        builder().memory(memory).transport_settings(settings).peers_config(peers).start().await.unwrap();
    let channel = node.channel(ChannelConfig::new(NAME)).unwrap();
    (node, channel)
}

/// Comes, sends whole messages that nobody reads, and goes.
async fn depart(target: SocketAddr, version: u32) {
    let peer = Handmade::dial(target, &[version], &[]).await;
    let mut stream = peer.connection.open_lazy(NAME).await.unwrap();
    let much = if version == 1 { MIB } else { 16_000 };
    let messages = framed(&[1; 3990]).repeat(much / 4000);
    // It may be refused at any point.
    let _ = tokio::time::timeout(PATIENCE, stream.send.write_chunk(messages.into())).await;
    let _ = stream.send.finish();
    let _ = tokio::time::timeout(PATIENCE, stream.recv.read_chunk(1)).await;
    peer.connection.close(CloseCode::Normal, "");
}

/// Sends all but the end of many messages, and stays.
async fn withhold(target: SocketAddr, version: u32) -> Handmade {
    let peer = Handmade::dial(target, &[version], &[]).await;
    let (streams, much) = if version == 1 { (40, 900_000) } else { (2, 16_000) };
    let half = framed(&vec![2; MIB]).slice(..much);
    let sending = (0..streams).map(async |_| {
        // It gets no more streams than are granted to it.
        let opened = tokio::time::timeout(PATIENCE, peer.connection.open_lazy(NAME)).await;
        let mut stream = opened.ok()?.unwrap();
        let _ = tokio::time::timeout(PATIENCE, stream.send.write_chunk(half.clone())).await;
        Some(stream)
    });
    // Open as long as the connection is.
    join_all(sending).await.into_iter().for_each(std::mem::forget);
    peer
}

/// Sends as fast as it may, and stays.
async fn pour(target: SocketAddr) -> (Node, Channel<Raw>) {
    let peer = builder().start().await.unwrap();
    let small = ChannelConfig::new(NAME).max_message_bytes(64 * 1024).send_queue(128 * 1024, 100);
    let channel = peer.channel::<Raw>(small).unwrap();
    let address = format!("/ip4/{}/udp/{}/quic-v1", target.ip(), target.port());
    let to = within("a connection", peer.connect(&address)).await.unwrap();
    let message = Raw(Bytes::from(vec![3; 50_000]));
    let pouring = async { while channel.send(to, &message).await.is_ok() {} };
    let _ = tokio::time::timeout(PATIENCE, pouring).await;
    (peer, channel)
}

/// Sends more than the line in one of three ways, and stays until the other process has no use for it.
async fn attack(target: SocketAddr, way: &str) {
    let numbers = 0..STAY as u32;
    let stay: Box<dyn Any> = match way {
        "depart" => {
            for _ in 0..30 {
                join_all([2, 1, 1, 1].map(|version| depart(target, version))).await;
            }
            Box::new(())
        }
        "withhold" => Box::new(join_all(numbers.map(|number| withhold(target, 1 + number % 2))).await),
        _ => Box::new(join_all(numbers.map(|_| pour(target))).await),
    };
    println!("{SENT}");
    let _ = tokio::io::stdin().read(&mut [0]).await;
    drop(stay);
}

/// A process of attackers that have sent everything. They stay until it is dropped.
async fn attackers(node: &Node, way: &str) -> Child {
    let target = format!("{} {way}", node.listen_addresses()[0].socket_addr().unwrap());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg("--nocapture")
        .env(TARGET, target)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let sent = async { while !lines.next_line().await.unwrap().unwrap().ends_with(SENT) {} };
    // A process more, and many peers one after the other.
    tokio::time::timeout(10 * LIMIT, sent).await.expect("all is sent");
    child
}

/// Contract C-9.
#[tokio::test]
async fn a_flood_that_nobody_reads_costs_no_more_resident_memory_than_the_line() {
    if let Ok(target) = std::env::var(TARGET) {
        let (address, way) = target.split_once(' ').unwrap();
        return attack(address.parse().unwrap(), way).await;
    }
    // What the first of everything costs is paid before it is measured.
    let (warm, channel) = start().await;
    let mut attacked = vec![(attackers(&warm, "pour").await, warm, channel)];
    for way in ["depart", "withhold", "pour"] {
        let (node, channel) = start().await;
        let before = resident();
        let attackers = attackers(&node, way).await;
        let (after, totals) = (resident(), channel.totals());
        let growth = after.saturating_sub(before);
        let (accounted, waiting) = (totals.accounted_bytes, totals.waiting_bytes);
        println!("{way}: grew by {growth} bytes, {accounted} accounted for, {waiting} wait");
        assert!(waiting <= accounted && accounted <= NODE_BYTES, "{totals:?}");
        assert!(accounted > NODE_BYTES / 2, "{way}: it came near the line: {totals:?}");
        let most = NODE_BYTES + STAY * WINDOW + SLACK;
        assert!(growth <= most, "{way}: it grew by {growth} bytes, and at most {most} are allowed");
        // What one holds is no room for the next.
        attacked.push((attackers, node, channel));
    }
}
