//! Our own node behind the drivers' contract.

use std::time::{Duration, Instant};

use clap::Args;
use peerage::{Change, DialAddress, Node, PeerEvent, PeerId, ReadError};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::mpsc;

use crate::channel::{self, Messages};
use crate::{Outcome, kad, streams};

const ECHO: &str = "/interop/echo/1";
const PUSHED: &str = "/interop/pushed/1";
/// A command that names no timeout.
const DEFAULT_TIMEOUT_MS: u64 = 10_000;
/// How often a condition that nobody reports is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The contract's arguments, as far as our node takes them.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What the node is in the DHT, client or server. Without it, nothing.
    #[arg(long)]
    kad: Option<String>,
    /// The DHT's protocol.
    #[arg(long, default_value = kad::PROTOCOL)]
    kad_protocol: String,
}

#[derive(Debug, Deserialize)]
struct Command {
    id: Option<Value>,
    #[serde(rename = "do")]
    what: String,
    addr: Option<String>,
    peer: Option<String>,
    protocol: Option<String>,
    count: Option<u32>,
    bytes: Option<usize>,
    messages: Option<usize>,
    upload: Option<u64>,
    download: Option<u64>,
    key: Option<String>,
    value: Option<String>,
    timeout_ms: Option<u64>,
}

/// Runs until standard input ends or says `quit`.
pub(crate) async fn run(options: Options) -> Outcome<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter("peerage=debug").init();
    let mut builder = Node::builder().network("interop").listen("/ip4/127.0.0.1/udp/0/quic-v1").serve_perf();
    if let Some(mode) = &options.kad {
        builder = builder.dht(kad::config(mode, &options.kad_protocol)?);
    }
    let node = builder.start().await?;
    tokio::spawn(streams::serve_echo(node.accept(ECHO)?));
    let messages = Messages::of(&node)?;
    let (out, mut lines_out) = mpsc::channel::<Value>(256);
    tokio::spawn(async move {
        while let Some(line) = lines_out.recv().await {
            println!("{line}");
        }
    });
    let address = node.listen_addresses().into_iter().next().ok_or("the node does not listen")?;
    let listening = json!({"event": "listening", "addr": address.to_string(), "peer": node.peer_id().to_string(),
        "implementation": "peerage", "version": env!("CARGO_PKG_VERSION")});
    out.send(listening).await?;
    tokio::spawn(report_events(node.clone(), out.clone()));

    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let command: Command = match serde_json::from_str(&line) {
            Ok(command) => command,
            Err(error) => {
                out.send(json!({"id": null, "error": format!("not a command: {error}")})).await?;
                continue;
            }
        };
        if command.what == "quit" {
            if let Some(id) = command.id {
                out.send(json!({"id": id, "ok": {}})).await?;
            }
            break;
        }
        let (node, messages, out) = (node.clone(), messages.clone(), out.clone());
        tokio::spawn(async move {
            let timeout = Duration::from_millis(command.timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS));
            let answer = match tokio::time::timeout(timeout, obey(&node, &messages, &command)).await {
                Ok(Ok(ok)) => json!({"id": command.id, "ok": ok}),
                Ok(Err(error)) => json!({"id": command.id, "error": error.to_string()}),
                Err(_) => json!({"id": command.id, "error": format!("no result within {timeout:?}")}),
            };
            let _ = out.send(answer).await;
        });
    }
    node.close().await;
    Ok(())
}

async fn report_events(node: Node, out: mpsc::Sender<Value>) {
    let Some(mut watch) = node.peers().watch().await else { return };
    while let Some(change) = watch.next().await {
        let line = match change {
            Change::Event(PeerEvent::Connected { peer, .. }) => {
                json!({"event": "connected", "peer": peer.to_string()})
            }
            Change::Event(PeerEvent::Disconnected { peer, cause, .. }) => {
                json!({"event": "disconnected", "peer": peer.to_string(), "cause": cause})
            }
            _ => continue,
        };
        if out.send(line).await.is_err() {
            return;
        }
    }
}

async fn obey(node: &Node, messages: &Messages, command: &Command) -> Outcome<Value> {
    match command.what.as_str() {
        "dial" => {
            let address: DialAddress = command.addr.as_deref().ok_or("addr is missing")?.parse()?;
            address.require_peer_id()?;
            Ok(json!({"peer": node.connect(&address).await?.to_string()}))
        }
        "ping" => {
            let mut rtts = Vec::new();
            for _ in 0..command.count.unwrap_or(3) {
                rtts.push(node.ping(peer(command)?).await?.as_micros() as u64);
            }
            Ok(json!({"rtt_us": rtts}))
        }
        "identify" => identify(node, peer(command)?).await,
        "push" => {
            tokio::spawn(streams::serve_echo(node.accept(PUSHED)?));
            Ok(json!({"protocol": PUSHED}))
        }
        "identified" => {
            let (peer, wanted) = (peer(command)?, protocol(command)?);
            loop {
                let info = node.peers().get(peer).ok_or("not connected to that peer")?;
                if info.about.protocols.iter().any(|name| name == wanted) {
                    return Ok(json!({"protocols": info.about.protocols}));
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
        "echo" => {
            let (bytes, start) = (command.bytes.unwrap_or(1 << 20), Instant::now());
            let stream = node.open(peer(command)?, command.protocol.as_deref().unwrap_or(ECHO)).await?;
            streams::echo(stream, bytes).await?;
            Ok(json!({"bytes": bytes, "ms": start.elapsed().as_millis() as u64}))
        }
        "channel_send" => {
            if protocol(command)? != channel::NAME {
                return Err(format!("unsupported: the channel of this driver is {}", channel::NAME).into());
            }
            messages.send(peer(command)?, command.messages.ok_or("messages is missing")?).await
        }
        "channel_take" => messages.take(peer(command)?, command.messages.ok_or("messages is missing")?).await,
        "post_quantum" => {
            let info = node.peers().get(peer(command)?).ok_or("not connected to that peer")?;
            Ok(json!({"post_quantum": info.post_quantum}))
        }
        "open" => {
            let mut stream = node.open(peer(command)?, protocol(command)?).await?;
            match stream.recv.negotiated().await {
                Ok(()) => Ok(json!({"refused": false})),
                Err(error @ ReadError::NotSupported { .. }) => {
                    Ok(json!({"refused": true, "detail": error.to_string()}))
                }
                Err(error) => Err(error.into()),
            }
        }
        "perf" => {
            let (upload, download) = (command.upload.unwrap_or(0), command.download.unwrap_or(0));
            let start = Instant::now();
            node.perf(peer(command)?, upload, download).await?;
            let ms = start.elapsed().as_millis() as u64;
            Ok(json!({"uploaded": upload, "downloaded": download, "ms": ms}))
        }
        "peers" => {
            let peers: Vec<_> =
                node.peers().connected().iter().map(|peer| peer.peer_id.to_string()).collect();
            Ok(json!({"peers": peers}))
        }
        "disconnect" => {
            node.peers().disconnect(peer(command)?).await;
            Ok(json!({}))
        }
        "kad_known" => kad::known(node, peer(command)?).await,
        "kad_find" => kad::find(node, peer(command)?).await,
        "kad_put" => kad::put(node, key(command)?, command.value.as_deref().ok_or("value is missing")?).await,
        "kad_get" => kad::get(node, key(command)?).await,
        "kad_publish" => {
            kad::publish(node, key(command)?, command.value.as_deref().ok_or("value is missing")?).await
        }
        "kad_fetch" => kad::fetch(node, peer(command)?, key(command)?).await,
        "kad_provide" => kad::provide(node, key(command)?).await,
        "kad_providers" => kad::providers(node, key(command)?).await,
        other => Err(format!("unknown command {other:?}").into()),
    }
}

async fn identify(node: &Node, peer: PeerId) -> Outcome<Value> {
    let about = node.identify(peer).await?;
    let info = node.peers().get(peer).ok_or("not connected to that peer")?;
    Ok(json!({
        "agent": about.agent, "protocol_version": about.protocol_version, "protocols": about.protocols,
        "listen": about.listen, "observed": about.observed, "public_key_type": info.key_type.to_lowercase(),
    }))
}

fn peer(command: &Command) -> Outcome<PeerId> {
    Ok(command.peer.as_deref().ok_or("peer is missing")?.parse()?)
}

fn protocol(command: &Command) -> Outcome<&str> {
    Ok(command.protocol.as_deref().ok_or("protocol is missing")?)
}

fn key(command: &Command) -> Outcome<&str> {
    Ok(command.key.as_deref().ok_or("key is missing")?)
}
