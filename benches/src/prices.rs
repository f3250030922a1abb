//! What each answer to a first packet costs: ignore, refuse, retry, a full handshake.
//!
//! ```text
//! cargo run --release -p peerage-bench -- prices
//! ```
//!
//! The server is a process of its own whose admission lets everything through, so that the answer alone is measured; its processor time is what
//! counts. Ignored, refused and retried packets are built beforehand; handshakes are done by real clients.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use comfy_table::{Table, presets};
use peerage::{NodeKey, TransportSettings};
use peerage_transport::{Endpoint, EndpointConfig, Incoming, Rate};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::{Outcome, child, flood};

/// Packets that are built and sent over and over.
const INITIALS: usize = 2000;
/// Packets sent between two pauses.
const VOLLEY: usize = 16;
/// Clients that shake hands at the same time.
const CLIENTS: usize = 8;

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Seconds for each answer.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
}

/// An answer whose price is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Answer {
    Ignore,
    Refuse,
    Retry,
    Accept,
}

/// For the server: gives every arrival one answer, and says how many on each line of standard input.
pub(crate) async fn serve(answer: Answer) -> Outcome<()> {
    let all = Rate::new(1_000_000_000, 1_000_000_000);
    let mut settings = TransportSettings::default();
    settings.admission.max_unvalidated_handshakes = 65_536;
    (settings.admission.unvalidated, settings.admission.validated) = (all, all);
    let mut config = EndpointConfig::new(NodeKey::generate());
    config.settings = settings;
    let endpoint = Endpoint::bind(config, &[SocketAddr::from((Ipv4Addr::LOCALHOST, 0))]).await?;
    let address = *endpoint.local_addresses().first().ok_or("no address")?;
    let count = Arc::new(AtomicU64::new(0));
    tokio::spawn({
        let (endpoint, count) = (endpoint.clone(), count.clone());
        async move {
            while let Some(incoming) = endpoint.accept().await {
                respond(answer, incoming, &count);
            }
        }
    });
    println!("{address}");
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while lines.next_line().await?.is_some() {
        println!("{}", count.load(Ordering::Relaxed));
    }
    Ok(())
}

fn respond(answer: Answer, incoming: Incoming, count: &Arc<AtomicU64>) {
    match answer {
        Answer::Ignore => incoming.ignore(),
        Answer::Refuse => incoming.refuse(),
        Answer::Retry => drop(incoming.retry()),
        Answer::Accept => {
            let count = count.clone();
            tokio::spawn(async move {
                if let Ok(connection) = incoming.accept().await {
                    count.fetch_add(1, Ordering::Relaxed);
                    connection.closed().await;
                }
            });
            return;
        }
    }
    count.fetch_add(1, Ordering::Relaxed);
}

pub(crate) async fn run(options: Options) -> Outcome<()> {
    eprintln!("building {INITIALS} Initial packets");
    let initials = Arc::new(flood::build_initials(INITIALS).await?);
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["answer", "given", "processor time of the server", "answers per second and core"]);
    for answer in [Answer::Ignore, Answer::Refuse, Answer::Retry, Answer::Accept] {
        eprintln!("measuring {answer:?}");
        let (given, busy) = measure(answer, initials.clone(), Duration::from_secs(options.seconds)).await?;
        table.add_row([
            format!("{answer:?}").to_lowercase(),
            given.to_string(),
            format!("{:.2} s", busy.as_secs_f64()),
            format!("{:.0}", given as f64 / busy.as_secs_f64().max(0.01)),
        ]);
    }
    println!("{table}");
    Ok(())
}

async fn measure(answer: Answer, initials: Arc<Vec<Vec<u8>>>, time: Duration) -> Outcome<(u64, Duration)> {
    let name = answer.to_possible_value().ok_or("an answer has no name")?.get_name().to_owned();
    let mut server = child::Server::start_with(&["serve-answer", &name]).await?;
    let to: SocketAddr = server.address.parse()?;
    let before = peerage_bench_peer::cpu_of(server.pid())?;
    if answer == Answer::Accept {
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..CLIENTS {
            clients.spawn(shake_hands(to, time));
        }
        while let Some(done) = clients.join_next().await {
            done??;
        }
    } else {
        tokio::task::spawn_blocking(move || volleys(&initials, to, time)).await??;
    }
    // Let what lies in the socket's buffer be answered.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let busy = peerage_bench_peer::cpu_of(server.pid())? - before;
    Ok((server.ask("count").await?.parse()?, busy))
}

async fn shake_hands(to: SocketAddr, time: Duration) -> Outcome<()> {
    let endpoint = Endpoint::bind(EndpointConfig::new(NodeKey::generate()), &[]).await?;
    let start = Instant::now();
    while start.elapsed() < time {
        let connection = endpoint.dial(to, None).await?;
        connection.close(peerage_transport::CloseCode::Normal, "");
    }
    Ok(())
}

/// Sends packets as fast as a server with one core can answer them, in small volleys, from addresses that take turns.
fn volleys(initials: &[Vec<u8>], to: SocketAddr, time: Duration) -> Outcome<()> {
    let sockets = (2..=101)
        .map(|last| {
            let socket = UdpSocket::bind((Ipv4Addr::new(127, 1, 1, last), 0))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        })
        .collect::<std::io::Result<Vec<_>>>()?;
    let (start, mut count) = (Instant::now(), 0usize);
    while start.elapsed() < time {
        for _ in 0..VOLLEY {
            let _ = sockets[count % sockets.len()].send_to(&initials[count % initials.len()], to);
            count += 1;
        }
        std::thread::sleep(Duration::from_micros(300));
    }
    Ok(())
}
