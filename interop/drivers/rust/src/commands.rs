//! The commands of the contract, each from its JSON to its JSON answer.

use std::{future::Future, time::Duration};

use libp2p::{identify, multiaddr::Protocol, Multiaddr, PeerId, StreamProtocol};
use serde_json::{json, Value};
use tokio::sync::oneshot;

use crate::{
    channel,
    kad::{unhex, Wanted},
    node::{Node, Order, View},
    streams,
};

type Outcome = Result<Value, String>;

const PUSHED: StreamProtocol = StreamProtocol::new("/interop/pushed/1");

/// Carries out one command within its time and makes its answer.
pub async fn answer(node: &Node, command: &Value) -> Value {
    let millis = command["timeout_ms"].as_u64().unwrap_or(10_000);
    let outcome = tokio::time::timeout(Duration::from_millis(millis), carry_out(node, command)).await;
    match outcome {
        Ok(Ok(ok)) => json!({"id": command["id"], "ok": ok}),
        Ok(Err(error)) => json!({"id": command["id"], "error": error}),
        Err(_) => json!({"id": command["id"], "error": format!("timeout after {millis} ms")}),
    }
}

async fn carry_out(node: &Node, command: &Value) -> Outcome {
    match command["do"].as_str() {
        Some("dial") => dial(node, text(command, "addr")?).await,
        Some("ping") => ping(node, peer(command)?, command["count"].as_u64().unwrap_or(3)).await,
        Some("identify") => {
            let info = identified(node, peer(command)?, |_| true).await?;
            Ok(identity_card(&info))
        }
        Some("identified") => {
            let protocol = text(command, "protocol")?;
            let names = |info: &identify::Info| info.protocols.iter().any(|p| p.as_ref() == protocol);
            let info = identified(node, peer(command)?, names).await?;
            Ok(json!({"protocols": protocols(&info)}))
        }
        Some("push") => push(node),
        Some("echo") => {
            let protocol = protocol(command)?;
            echo(node, peer(command)?, protocol, number(command, "bytes")?).await
        }
        Some("channel_send") => {
            let protocol = protocol(command)?;
            channel_send(node, peer(command)?, protocol, number(command, "messages")?).await
        }
        Some("channel_take") => {
            Ok(node.inbox.take(peer(command)?, number(command, "messages")?).await.to_json())
        }
        Some("open") => open(node, peer(command)?, protocol(command)?).await,
        Some("perf") => {
            let (upload, download) = (number(command, "upload")?, number(command, "download")?);
            perf(node, peer(command)?, upload, download).await
        }
        Some("peers") => Ok(json!({
            "peers": node.view.borrow().connected.iter().map(PeerId::to_string).collect::<Vec<_>>(),
        })),
        Some("disconnect") => disconnect(node, peer(command)?).await,
        Some("kad_known") => {
            let peer = peer(command)?;
            let known = node.view.clone().wait_for(|view| view.routed.contains(&peer)).await.is_ok();
            known.then(|| json!({})).ok_or_else(|| "the node has stopped".into())
        }
        Some("kad_find") => kad_find(node, peer(command)?).await,
        Some("kad_put") => {
            let (key, value) = (text(command, "key")?.into(), unhex(text(command, "value")?)?);
            kad(node, Wanted::Put(key, value)).await
        }
        Some("kad_get") => kad(node, Wanted::Get(text(command, "key")?.into())).await,
        Some("kad_provide") => kad(node, Wanted::Provide(unhex(text(command, "key")?)?)).await,
        Some("kad_providers") => kad(node, Wanted::Providers(unhex(text(command, "key")?)?)).await,
        Some(other) => Err(format!("unknown command {other}")),
        None => Err("no command: \"do\" is missing".into()),
    }
}

async fn dial(node: &Node, address: &str) -> Outcome {
    let mut address: Multiaddr = address.parse().map_err(|error| format!("{address}: {error}"))?;
    let Some(Protocol::P2p(peer)) = address.pop() else {
        return Err("the address does not end in /p2p/ID".into());
    };
    if !node.view.borrow().connected.contains(&peer) {
        let (reply, outcome) = oneshot::channel();
        give(node, Order::Dial(peer, address, reply))?;
        outcome.await.map_err(|_| "the node has stopped".to_string())??;
    }
    Ok(json!({"peer": peer.to_string()}))
}

async fn ping(node: &Node, peer: PeerId, count: u64) -> Outcome {
    let mut pings = node.pings.subscribe();
    connected(node, peer)?;
    if node.view.borrow().pingless.contains(&peer) {
        return Err("the peer does not speak ping".into());
    }
    let mut round_trips = Vec::new();
    let measure = async {
        while (round_trips.len() as u64) < count {
            match pings.recv().await {
                Ok((from, result)) if from == peer => round_trips.push(result?.as_micros() as u64),
                Ok(_) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    };
    unless_disconnected(node, peer, measure).await?;
    Ok(json!({"rtt_us": round_trips}))
}

/// Waits until identify has told of the peer what `enough` asks for.
async fn identified(
    node: &Node,
    peer: PeerId,
    enough: impl Fn(&identify::Info) -> bool,
) -> Result<identify::Info, String> {
    connected(node, peer)?;
    let mut view = node.view.clone();
    let seen = async {
        let view = view
            .wait_for(|view| view.identified.get(&peer).is_some_and(&enough))
            .await
            .map_err(|_| "the node has stopped".to_string())?;
        Ok(view.identified[&peer].clone())
    };
    unless_disconnected(node, peer, seen).await
}

fn identity_card(info: &identify::Info) -> Value {
    json!({
        "agent": info.agent_version,
        "protocol_version": info.protocol_version,
        "protocols": protocols(info),
        "listen": info.listen_addrs.iter().map(Multiaddr::to_string).collect::<Vec<_>>(),
        "observed": info.observed_addr.to_string(),
        "public_key_type": info.public_key.key_type().to_string().to_lowercase(),
    })
}

fn push(node: &Node) -> Outcome {
    node.protocols.add(PUSHED);
    // The swarm notices new protocols when a connection wakes up, which the order makes each of them do.
    give(node, Order::Push)?;
    Ok(json!({"protocol": PUSHED.to_string()}))
}

async fn echo(node: &Node, peer: PeerId, protocol: StreamProtocol, bytes: u64) -> Outcome {
    connected(node, peer)?;
    let started = std::time::Instant::now();
    let stream = node.streams.clone().open_stream(peer, protocol).await.map_err(|error| error.to_string())?;
    streams::echo(stream, bytes).await?;
    Ok(json!({"bytes": bytes, "ms": started.elapsed().as_millis() as u64}))
}

async fn channel_send(node: &Node, peer: PeerId, protocol: StreamProtocol, messages: u64) -> Outcome {
    connected(node, peer)?;
    let stream = node.streams.clone().open_stream(peer, protocol).await.map_err(|error| error.to_string())?;
    Ok(channel::send(stream, messages).await?.to_json())
}

async fn open(node: &Node, peer: PeerId, protocol: StreamProtocol) -> Outcome {
    connected(node, peer)?;
    match node.streams.clone().open_stream(peer, protocol).await {
        Ok(stream) => {
            streams::finish(stream).await;
            Ok(json!({"refused": false}))
        }
        // Only an `na` ends here; a reset or an early end is an I/O error.
        Err(error @ libp2p_stream::OpenStreamError::UnsupportedProtocol(_)) => {
            Ok(json!({"refused": true, "detail": error.to_string()}))
        }
        Err(error) => Err(error.to_string()),
    }
}

async fn perf(node: &Node, peer: PeerId, upload: u64, download: u64) -> Outcome {
    connected(node, peer)?;
    let started = std::time::Instant::now();
    let stream =
        node.streams.clone().open_stream(peer, streams::PERF).await.map_err(|error| error.to_string())?;
    streams::perf(stream, upload, download).await?;
    Ok(json!({"uploaded": upload, "downloaded": download, "ms": started.elapsed().as_millis() as u64}))
}

async fn kad(node: &Node, wanted: Wanted) -> Outcome {
    let (reply, outcome) = oneshot::channel();
    give(node, Order::Kad(wanted, reply))?;
    outcome.await.map_err(|_| "the node has stopped".to_string())?
}

/// The library looks for the closest peers: the one that is meant must be the first of them.
async fn kad_find(node: &Node, peer: PeerId) -> Outcome {
    let found = kad(node, Wanted::Find(peer)).await?;
    let first = &found["closest"][0];
    match first["peer"] == peer.to_string() {
        true => Ok(first.clone()),
        false => Err(format!("{peer} was not found, but {found}")),
    }
}

async fn disconnect(node: &Node, peer: PeerId) -> Outcome {
    connected(node, peer)?;
    give(node, Order::Disconnect(peer))?;
    let mut view = node.view.clone();
    let _ = view.wait_for(|view| !view.connected.contains(&peer)).await;
    Ok(json!({}))
}

fn give(node: &Node, order: Order) -> Result<(), String> {
    node.orders.send(order).map_err(|_| "the node has stopped".into())
}

fn connected(node: &Node, peer: PeerId) -> Result<(), String> {
    match node.view.borrow().connected.contains(&peer) {
        true => Ok(()),
        false => Err(format!("not connected to {peer}")),
    }
}

async fn unless_disconnected<T>(
    node: &Node,
    peer: PeerId,
    work: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    let mut view = node.view.clone();
    tokio::select! {
        result = work => result,
        _ = view.wait_for(|view: &View| !view.connected.contains(&peer)) => Err(format!("{peer} has disconnected")),
    }
}

fn protocols(info: &identify::Info) -> Vec<&str> {
    info.protocols.iter().map(AsRef::as_ref).collect()
}

fn text<'a>(command: &'a Value, field: &str) -> Result<&'a str, String> {
    command[field].as_str().ok_or_else(|| format!("\"{field}\" is missing"))
}

fn number(command: &Value, field: &str) -> Result<u64, String> {
    command[field].as_u64().ok_or_else(|| format!("\"{field}\" is missing"))
}

fn peer(command: &Value) -> Result<PeerId, String> {
    let peer = text(command, "peer")?;
    peer.parse().map_err(|error| format!("{peer}: {error}"))
}

fn protocol(command: &Value) -> Result<StreamProtocol, String> {
    let protocol = text(command, "protocol")?;
    StreamProtocol::try_from_owned(protocol.to_string()).map_err(|error| format!("{protocol}: {error}"))
}
