//! A node under a flood of handshakes that nobody means to finish: what honest peers keep.
//!
//! ```text
//! cargo run --release -p peerage-bench -- flood
//! ```
//!
//! Initial packets are built beforehand by real clients that dial a silent socket, so that each decrypts and holds a ClientHello. They are then
//! sent from sockets on random addresses of 127.0.0.0/8, whose owners never answer. Beside the flood an established peer sends requests at half
//! of what it reached before, and new nodes dial at a steady pace.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use peerage::{DialAddress, Node, PeerId, Raw};

use crate::Outcome;
use crate::child::Server;
use crate::ours::ECHO;
use peerage_bench_peer::{cpu_of, resident_bytes};

/// Requests in flight while the highest rate is looked for.
const IN_FLIGHT: usize = 16;
/// How long the highest rate is looked for.
const PROBE: Duration = Duration::from_secs(3);
/// Sockets from which the flood comes, each on an address of its own.
const SOURCES: usize = 400;
/// Initial packets that are built; they are sent again and again.
const INITIALS: usize = 5000;
/// A request that is not answered within this time has failed.
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);

/// How hard to flood.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Initial packets a second.
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    rate: u32,
    /// For how many seconds.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=120))]
    seconds: u64,
    /// Honest new dials a second.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=50))]
    dials: u32,
}

pub(crate) async fn run(options: Options) -> Outcome<()> {
    let server = Server::start_with(&["peer", "ours", "serve"]).await?;
    let address: DialAddress = server.address.parse()?;
    let target = address.socket_addr().ok_or("the server's address is no socket address")?;
    let client = Node::builder().network("bench").start().await?;
    let peer = client.connect(&address).await?;

    eprintln!("building {INITIALS} Initial packets");
    let initials = build_initials(INITIALS).await?;
    eprintln!("looking for the highest request rate");
    let highest = highest_rate(&client, peer).await?;
    let memory_before = resident_bytes(server.pid())?;
    let busy_before = cpu_of(server.pid())?;

    eprintln!("flooding {target} with {} Initials a second for {} s", options.rate, options.seconds);
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let flooder = std::thread::spawn({
        let (stop, sent, rate) = (stop.clone(), sent.clone(), options.rate);
        move || flood(&initials, target, rate, &stop, &sent)
    });
    let time = Duration::from_secs(options.seconds);
    let ((answered, asked), (admitted, dialled)) = tokio::join!(
        paced_requests(&client, peer, highest / 2.0, time),
        honest_dials(&address, options.dials, time)
    );
    stop.store(true, Ordering::Relaxed);
    flooder.join().map_err(|_| "the flooder panicked")??;
    let busy = (cpu_of(server.pid())? - busy_before).as_secs_f64() / time.as_secs_f64();
    let grown = resident_bytes(server.pid())?.saturating_sub(memory_before);

    println!("highest request rate before the flood: {highest:.0} a second, {IN_FLIGHT} in flight");
    println!("Initials sent: {}", sent.load(Ordering::Relaxed));
    verdict("requests answered, paced at half of that rate", ratio(answered, asked), 0.80, answered, asked);
    verdict("honest dials admitted", ratio(admitted, dialled), 0.95, admitted, dialled);
    println!(
        "resident memory grew by {:.1} MiB (bar: 64): {}",
        grown as f64 / (1 << 20) as f64,
        word(grown <= 64 << 20)
    );
    println!("the server used {busy:.2} cores");
    client.close().await;
    Ok(())
}

fn verdict(what: &str, share: f64, bar: f64, good: u64, all: u64) {
    println!(
        "{what}: {good} of {all}, {:.1} % (bar: {:.0} %): {}",
        share * 100.0,
        bar * 100.0,
        word(share >= bar)
    );
}

fn word(holds: bool) -> &'static str {
    if holds { "reached" } else { "MISSED" }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Lets real clients dial a socket that never answers, and keeps their first packets.
pub(crate) async fn build_initials(count: usize) -> Outcome<Vec<Vec<u8>>> {
    let sink = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let to = sink.local_addr()?;
    let mut initials = Vec::with_capacity(count);
    let mut buffer = vec![0; 2048];
    while initials.len() < count {
        let mut dials: FuturesUnordered<_> = (0..8).map(|_| dial_silence(to)).collect();
        loop {
            tokio::select! {
                received = sink.recv(&mut buffer) => {
                    let length = received?;
                    // A long header of type Initial, version 1, padded as a client must.
                    if length >= 1200 && buffer[0] & 0xf0 == 0xc0 && buffer[1..5] == [0, 0, 0, 1] {
                        initials.push(buffer[..length].to_vec());
                        if initials.len().is_multiple_of(8) {
                            break;
                        }
                    }
                }
                Some(()) = dials.next() => {}
            }
        }
    }
    Ok(initials)
}

/// Dials with an endpoint of its own until it is dropped.
async fn dial_silence(to: SocketAddr) {
    let config = peerage_transport::EndpointConfig::new(peerage::NodeKey::generate());
    if let Ok(endpoint) = peerage_transport::Endpoint::bind(config, &[]).await {
        let _ = endpoint.dial(to, None).await;
    }
}

/// Sends the packets at a steady rate from many loopback addresses.
fn flood(
    initials: &[Vec<u8>],
    target: SocketAddr,
    rate: u32,
    stop: &AtomicBool,
    sent: &AtomicU64,
) -> std::io::Result<()> {
    let mut sources = Vec::with_capacity(SOURCES);
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    while sources.len() < SOURCES {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let [a, b, c, ..] = (seed >> 33).to_le_bytes();
        let socket = UdpSocket::bind((Ipv4Addr::new(127, a, b, c.max(2)), 0))?;
        socket.set_nonblocking(true)?;
        sources.push(socket);
    }
    let start = Instant::now();
    let (mut count, mut taken) = (0usize, 0u64);
    while !stop.load(Ordering::Relaxed) {
        let due = (start.elapsed().as_secs_f64() * f64::from(rate)) as usize;
        while count < due {
            // What the kernel refuses is not sent: the flood goes on.
            let outcome = sources[count % SOURCES].send_to(&initials[count % initials.len()], target);
            taken += u64::from(outcome.is_ok());
            count += 1;
        }
        sent.store(taken, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

async fn highest_rate(client: &Node, peer: PeerId) -> Outcome<f64> {
    let start = Instant::now();
    let mut running: FuturesUnordered<_> = (0..IN_FLIGHT).map(|_| request(client, peer)).collect();
    let mut count = 0u64;
    while start.elapsed() < PROBE {
        if running.next().await != Some(true) {
            return Err("a request failed before the flood".into());
        }
        count += 1;
        running.push(request(client, peer));
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

/// Sends requests at a rate; how many were answered in time, and how many were due.
async fn paced_requests(client: &Node, peer: PeerId, rate: f64, time: Duration) -> (u64, u64) {
    let (start, due) = (Instant::now(), (rate * time.as_secs_f64()) as u64);
    let (mut started, mut answered) = (0u64, 0u64);
    let mut running = FuturesUnordered::new();
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    while start.elapsed() < time {
        tokio::select! {
            _ = tick.tick() => {
                let until_now = (start.elapsed().as_secs_f64() * rate) as u64;
                // What an overloaded server does not get through is not piled up without bound: it counts as not answered.
                while started < until_now && running.len() < 2000 {
                    running.push(request(client, peer));
                    started += 1;
                }
                started = started.max(until_now);
            }
            Some(good) = running.next(), if !running.is_empty() => answered += u64::from(good),
        }
    }
    while let Some(good) = running.next().await {
        answered += u64::from(good);
    }
    (answered, due)
}

async fn request(client: &Node, peer: PeerId) -> bool {
    let question = Raw(Bytes::from_static(&[1; 32]));
    client.request_within::<Raw, Raw>(peer, ECHO, &question, REQUEST_DEADLINE).await.is_ok()
}

/// New nodes dial at a steady pace; how many were admitted, and how many tried.
async fn honest_dials(address: &DialAddress, rate: u32, time: Duration) -> (u64, u64) {
    let mut tick = tokio::time::interval(Duration::from_secs(1) / rate);
    let total = u64::from(rate) * time.as_secs();
    let mut running = FuturesUnordered::new();
    for _ in 0..total {
        tick.tick().await;
        running.push(tokio::spawn(dial_once(address.clone())));
    }
    let mut admitted = 0;
    while let Some(good) = running.next().await {
        admitted += u64::from(good.unwrap_or(false));
    }
    (admitted, total)
}

async fn dial_once(address: DialAddress) -> bool {
    let Ok(node) = Node::builder().network("bench").max_outbound(0).start().await else { return false };
    let good = node.connect(&address).await.is_ok();
    node.close().await;
    good
}
