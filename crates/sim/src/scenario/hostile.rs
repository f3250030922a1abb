//! Operators' mistakes and attackers.

use std::time::Duration;

use bytes::Bytes;
use peerage::{ChannelConfig, DialAddress, NodeBuilder, PeerEvent, Raw};
use peerage_identity::{NodeKey, SignedPeerRecord};
use peerage_transport::Connection;
use peerage_wire::hello::answer::Verdict;

use crate::ensure;
use crate::failed::Failed;
use crate::net::Link;
use crate::scenario::intruder::{HELLO, Intruder, Reaction, provoke};
use crate::scenario::{Plan, Report, count_events, seconds};
use crate::world::{SimNode, World, transport_settings};

/// Two nodes with one key, among others.
pub(super) async fn clones(world: World, plan: Plan) -> Result<Report, Failed> {
    world.default_link(Link::between_ms(5, 80));
    let seed = world.node("seed", |builder| builder).await?;
    let address = seed.address();
    for number in 0..4 {
        let address = address.clone();
        world.node(format!("n{number}"), move |builder| builder.seed(&address)).await?;
    }
    let address = seed.address();
    let original = world.node("original", move |builder| builder.seed(&address)).await?;
    world.run_for(seconds(10)).await;
    let others: Vec<_> = world.nodes().into_iter().filter(|node| node.name() != "original").collect();
    let key = if plan.faults { original.key().clone() } else { NodeKey::from_seed([9; 32]) };
    // Without a peer ID: it would be the clone's own.
    let (address, bare) = (seed.address(), DialAddress::from_socket_addr(original.socket_address())?);
    let configure = move |builder: NodeBuilder| builder.seed(&address).seed(&bare);
    let clone = world.describe("clone").key(key).start(configure).await?;
    world.run_for(seconds(60)).await;
    let told = |node: &SimNode| {
        count_events(std::slice::from_ref(node), |event| matches!(event, PeerEvent::CloneSeen { .. }))
    };
    let both = [told(&original), told(&clone)];
    ensure!(both.iter().all(|times| *times > 0), "a clone was not told of the other: {both:?}");
    ensure!(both.iter().all(|times| *times == 1), "a clone was told more than once: {both:?}");
    let connected = count_events(
        &others,
        |event| matches!(event, PeerEvent::Connected { peer, .. } if *peer == original.peer_id()),
    );
    ensure!(
        connected <= 3 * others.len(),
        "{connected} connections of the clones' key at {} nodes: it flaps",
        others.len()
    );
    Ok(vec![("connections of the key", connected as f64)])
}

/// One after the other, attackers violate each protocol.
pub(super) async fn malicious(world: World, plan: Plan) -> Result<Report, Failed> {
    world.default_link(Link::latency_ms(20));
    let victim = world.node("victim", |builder| builder.serve_perf()).await?;
    let _channel = victim.node().channel::<Raw>(ChannelConfig::new(CHANNEL).max_message_bytes(1024))?;
    victim.node().serve::<Raw, Raw, _, _>(ECHO, |_, question| async move { Ok(question) })?;
    let address = victim.address();
    let honest = world.node("honest", move |builder| builder.persistent(&address)).await?;
    world.until("the honest peer is there", seconds(10), || honest.is_connected_to(&victim)).await?;
    let mut violations = 0;
    let attacks: &[&str] = if plan.faults { ATTACKS } else { &[] };
    for attack in attacks {
        let intruder = Intruder::new(&world, attack).await?;
        run_attack(&world, &intruder, &victim, attack)
            .await
            .map_err(|reason| Failed::new(format!("after {attack}: {reason}")))?;
        violations += 1;
        let took = honest.node().ping(victim.peer_id()).await;
        let took =
            took.map_err(|error| Failed::new(format!("after {attack} the honest peer's ping: {error}")))?;
        ensure!(took < Duration::from_millis(200), "after {attack} the honest peer's ping took {took:?}");
        let echo: Raw =
            honest.node().request(victim.peer_id(), ECHO, &Raw(Bytes::from_static(b"echo"))).await?;
        ensure!(echo.0 == "echo", "after {attack} the echo was another");
    }
    ensure!(violations == ATTACKS.len(), "{violations} of {} violations were tried", ATTACKS.len());
    let lost = count_events(std::slice::from_ref(&honest), super::is_disconnect);
    ensure!(lost == 0, "the honest peer lost its connection {lost} times");
    Ok(vec![("violations", violations as f64)])
}

/// Every violation, in one's own words.
const ATTACKS: &[&str] = &[
    "bytes that are no QUIC",
    "garbage in place of a hello",
    "a hello beyond its limit",
    "a hello of another network",
    "a hello with somebody else's record",
    "a hello with a forged record",
    "no hello",
    "an unanswered hello",
    "more streams than a stranger has",
    "a second hello",
    "an unknown protocol",
    "a garbled identify push",
    "an endless identify push",
    "a garbled question for peers",
    "a flood of questions for peers",
    "a third ping stream",
    "a channel message beyond its limit",
    "a channel message of endless length",
    "a request beyond its limit",
    "a half request",
];

async fn run_attack(
    world: &World,
    intruder: &Intruder,
    victim: &SimNode,
    attack: &str,
) -> Result<(), Failed> {
    match attack {
        "bytes that are no QUIC" => {
            let mut random = world.random(attack);
            for _ in 0..300 {
                let mut packet = vec![0; 1 + random.index(1400)];
                random.fill(&mut packet);
                intruder.throw(victim, &packet)?;
            }
            world.run_for(seconds(1)).await;
            Ok(())
        }
        "no hello" | "an unanswered hello" | "more streams than a stranger has" => {
            stall(world, intruder, victim, attack).await
        }
        _ if attack.contains("hello") && attack != "a second hello" => {
            greet_badly(intruder, victim, attack).await
        }
        _ => {
            let connection = intruder.admitted(victim).await?;
            let id = intruder.key.peer_id();
            world.until("the intruder is admitted", seconds(5), || victim.connected().contains(&id)).await?;
            let done = misbehave(&connection, attack, intruder).await;
            connection.close(peerage_transport::CloseCode::Normal, "done");
            done
        }
    }
}

/// Hellos that must be refused.
async fn greet_badly(intruder: &Intruder, victim: &SimNode, attack: &str) -> Result<(), Failed> {
    let connection = intruder.connect(victim).await?;
    let mut hello = intruder.hello()?;
    let stranger = NodeKey::from_seed([42; 32]);
    match attack {
        "garbage in place of a hello" => {
            return gives_up(provoke(&connection, HELLO, vec![0x0a; 200], true).await?);
        }
        "a hello beyond its limit" => {
            return gives_up(provoke(&connection, HELLO, delimited(20_000), true).await?);
        }
        "a hello of another network" => hello.network = "elsewhere".to_owned(),
        "a hello with somebody else's record" => {
            hello.signed_record = SignedPeerRecord::sign(&stranger, 1, &[])?.as_bytes().clone();
        }
        _ => {
            let mut forged = hello.signed_record.to_vec();
            if let Some(last) = forged.last_mut() {
                *last ^= 1;
            }
            hello.signed_record = forged.into();
        }
    }
    match intruder.greet(&connection, &hello).await?.and_then(|answer| answer.verdict) {
        Some(Verdict::Reject(_)) => {}
        other => return Err(Failed::new(format!("the hello was not refused: {other:?}"))),
    }
    ends(&connection).await
}

/// Strangers that hold what they have.
async fn stall(world: &World, intruder: &Intruder, victim: &SimNode, attack: &str) -> Result<(), Failed> {
    let connection = intruder.connect(victim).await?;
    let mut held = Vec::new();
    match attack {
        "an unanswered hello" => {
            let _ = intruder.greet(&connection, &intruder.hello()?).await;
        }
        "more streams than a stranger has" => {
            for _ in 0..50 {
                let opening = connection.open("/sim/nothing/1");
                match tokio::time::timeout(Duration::from_millis(100), opening).await {
                    Ok(stream) => held.push(stream?),
                    Err(_) => break,
                }
            }
            let most = transport_settings().stranger_streams as usize;
            ensure!(held.len() <= 2 * most, "a stranger had {} streams", held.len());
        }
        _ => {}
    }
    let start = world.now();
    ends(&connection).await?;
    let took = world.now() - start;
    ensure!(took <= seconds(6), "the stranger was only sent away after {took:?}");
    Ok(())
}

/// What an admitted peer may do wrong.
async fn misbehave(connection: &Connection, attack: &str, intruder: &Intruder) -> Result<(), Failed> {
    let provoked = |protocol: &'static str, bytes: Vec<u8>| provoke(connection, protocol, bytes, true);
    match attack {
        "a second hello" => {
            let again =
                tokio::time::timeout(seconds(10), intruder.greet(connection, &intruder.hello()?)).await;
            ensure!(!matches!(again, Ok(Ok(Some(_)))), "the second hello was answered: {again:?}");
            Ok(())
        }
        "an unknown protocol" => gives_up(provoked("/sim/nothing/1", vec![1, 2, 3]).await?),
        "a garbled identify push" => {
            gives_up(provoked("/ipfs/id/push/1.0.0", vec![3, 0xff, 0xff, 0xff]).await?)
        }
        "an endless identify push" => gives_up(provoked("/ipfs/id/push/1.0.0", delimited(100_000)).await?),
        "a garbled question for peers" => {
            gives_up(provoked("/peerage/exchange/1", vec![2, 0xff, 0xff]).await?)
        }
        "a flood of questions for peers" => {
            for _ in 0..20 {
                if let Reaction::Reset | Reaction::Closed =
                    provoked("/peerage/exchange/1", vec![2, 8, 30]).await?
                {
                    return Ok(());
                }
            }
            Err(Failed::new("twenty questions at once were answered"))
        }
        "a third ping stream" => {
            let mut held = Vec::new();
            for _ in 0..2 {
                let mut stream = connection.open("/ipfs/ping/1.0.0").await?;
                stream.send.write_all(&[7; 32]).await?;
                let echoed = stream.recv.read_chunk(32).await?.map(|echo| echo.len());
                ensure!(echoed == Some(32), "an allowed ping was not echoed");
                held.push(stream);
            }
            gives_up(provoked("/ipfs/ping/1.0.0", vec![7; 32]).await?)
        }
        "a channel message beyond its limit" => gives_up(provoked(CHANNEL, delimited(5000)).await?),
        "a channel message of endless length" => gives_up(provoked(CHANNEL, vec![0xff; 40]).await?),
        "a request beyond its limit" => gives_up(provoked(ECHO, vec![0xff, 0xff, 0xff, 0xff, 0x7f]).await?),
        "a half request" => gives_up(provoked(ECHO, vec![100, 1, 2, 3]).await?),
        other => Err(Failed::new(format!("nobody knows how to do {other}"))),
    }
}

/// A violation must not be answered as if it were none, nor be waited on for ever.
fn gives_up(reaction: Reaction) -> Result<(), Failed> {
    match reaction {
        Reaction::Closed | Reaction::Reset => Ok(()),
        // An answer that says what was wrong.
        Reaction::Ended(count) if count <= 300 => Ok(()),
        other => Err(Failed::new(format!("the violation led to {other:?}"))),
    }
}

async fn ends(connection: &Connection) -> Result<(), Failed> {
    let ended = tokio::time::timeout(seconds(10), connection.closed()).await;
    ended.map(drop).map_err(|_| Failed::new("the connection was kept"))
}

/// A message of so many bytes, with its length in front.
fn delimited(length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 5);
    let mut rest = length;
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes.resize(bytes.len() + length, 0x55);
    bytes
}

const CHANNEL: &str = "/sim/feed/1";
const ECHO: &str = "/sim/echo/1";
