//! What must not be told, looked for in all that nodes write on any stream, before it is encrypted.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use peerage::{NodeBuilder, NodeKey, PeerClass, PeerEvent, PeerId};
use peerage_sim::{Failed, Said, SimNode, World, ensure, simulate, transport_settings};
use peerage_transport::{Endpoint, EndpointConfig};

const SECOND: Duration = Duration::from_secs(1);

/// In which bytes a peer would be recognised: its key and its addresses, binary and as text.
fn marks(key: &NodeKey, ips: &[IpAddr]) -> Vec<Vec<u8>> {
    let id = key.peer_id();
    // The key is the end of the ID in every binary form: multihash, CID, public key.
    let bytes = id.to_bytes();
    let mut marks = vec![bytes[bytes.len() - 32..].to_vec(), id.to_string().into_bytes()];
    for ip in ips {
        marks.push(ip.to_string().into_bytes());
        marks.push(match ip {
            IpAddr::V4(ip) => [&[4][..], &ip.octets()].concat(),
            IpAddr::V6(ip) => [&[41][..], &ip.octets()].concat(),
        });
    }
    marks
}

fn has(bytes: &[u8], mark: &[u8]) -> bool {
    bytes.windows(mark.len()).any(|window| window == mark)
}

/// Everything that was said to others than `secret`, and not by them, in which one of them can be recognised.
fn leaks<'a>(world: &World, heard: &'a [Said], secret: &[(SimNode, Vec<Vec<u8>>)]) -> Vec<&'a Said> {
    let is_secret = |peer: &PeerId| secret.iter().any(|(node, _)| node.peer_id() == *peer);
    let by_secret = |name: &str| secret.iter().any(|(node, _)| node.name() == name);
    let others: Vec<_> = world.nodes().iter().map(SimNode::peer_id).filter(|id| !is_secret(id)).collect();
    assert!(others.len() > 5);
    let told = heard.iter().filter(|said| !is_secret(&said.to) && !by_secret(&said.from));
    told.filter(|said| secret.iter().any(|(_, marks)| marks.iter().any(|mark| has(&said.bytes, mark))))
        .collect()
}

struct Scene {
    world: World,
    sentry: SimNode,
    secret: Vec<(SimNode, Vec<Vec<u8>>)>,
    /// The address book that the sentry's user gives away.
    book: String,
    refusals: usize,
}

/// A sentry with three peers behind it: one that dials it, one that it dials, and one that its user speaks of only at run time. Twelve others, of which half
/// find it full, and a foreign node, are all around it for three minutes, in which it also gets a new address and its peers come and go.
async fn play(world: World, private: bool) -> Result<Scene, Failed> {
    world.listen_in();
    let ips: [Vec<IpAddr>; 3] = [
        vec!["77.66.55.44".parse()?, "2a77:6655:44::1".parse()?],
        vec!["88.77.66.55".parse()?],
        vec!["99.88.77.66".parse()?],
    ];
    let keys = [51, 52, 53].map(|seed| NodeKey::from_seed([seed; 32]));
    let [dialler, dialled, later] = keys.each_ref().map(NodeKey::peer_id);
    let aside = |builder: NodeBuilder| builder.max_outbound(0);
    let out = world.describe("dialled").key(keys[1].clone()).on(world.net().host_at(&ips[1]));
    let out = out.start(aside).await?;
    let (address, mut classes) = (out.address(), vec![(PeerClass::Unconditional, dialler)]);
    if private {
        classes.extend([(PeerClass::Private, dialler), (PeerClass::Private, dialled)]);
    }
    let configure = move |mut builder: NodeBuilder| {
        for (class, peer) in &classes {
            builder = match class {
                PeerClass::Private => builder.private(peer),
                _ => builder.unconditional(peer),
            };
        }
        builder.persistent(&address).max_inbound(6).moniker("sentry")
    };
    let sentry = world.node("sentry", configure).await?;
    let address = sentry.address();
    let to_sentry = move |builder: NodeBuilder| aside(builder).persistent(&address);
    let inside = world.describe("dialler").key(keys[0].clone()).on(world.net().host_at(&ips[0]));
    let inside = inside.start(to_sentry.clone()).await?;
    world.until("the private peers are there", 10 * SECOND, || sentry.connected().len() == 2).await?;
    for number in 0..12 {
        let address = sentry.address();
        world.node(format!("public {number}"), move |builder| builder.seed(&address)).await?;
    }
    world.run_for(20 * SECOND).await;
    foreign(&world, &sentry).await?;
    if private {
        sentry.node().peers().set_class(later, PeerClass::Private).await;
    }
    sentry.node().peers().set_class(later, PeerClass::Unconditional).await;
    let third = world.describe("later").key(keys[2].clone()).on(world.net().host_at(&ips[2]));
    let third = third.start(to_sentry).await?;
    world.until("the third is there", 30 * SECOND, || sentry.is_connected_to(&third)).await?;
    // A new address goes out with identify push, and with each hello from now on.
    let also = format!("/ip4/{}/udp/4455/quic-v1", sentry.socket_address().ip());
    sentry.node().listen(&also).await?;
    world.run_for(40 * SECOND).await;
    for node in [&out, &third] {
        world.crash(node);
        world.run_for(40 * SECOND).await;
        world.restart(node).await?;
    }
    let victim = world.nodes().into_iter().find(|node| node.name() == "public 3").unwrap();
    world.stop(&victim).await;
    world.run_for(40 * SECOND).await;
    world.restart(&victim).await?;
    world.run_for(20 * SECOND).await;
    let book = sentry.node().peers().export_book().await?;
    let refused = |node: &SimNode| {
        let named = |event: &PeerEvent| {
            matches!(event, PeerEvent::RefusedByPeer { peer, alternatives, .. }
                if *peer == sentry.peer_id() && !alternatives.is_empty())
        };
        node.events().iter().filter(|(_, event)| named(event)).count()
    };
    let refusals = world.nodes().iter().map(refused).sum();
    let secret = [inside, out, third].into_iter().zip(keys.iter().zip(&ips));
    let secret = secret.map(|(node, (key, ips))| (node, marks(key, ips))).collect();
    Ok(Scene { world, sentry, secret, book, refusals })
}

/// A node that speaks libp2p and no hello asks for everything.
async fn foreign(world: &World, sentry: &SimNode) -> Result<(), Failed> {
    let (net, host) = (world.net().clone(), world.net().host());
    let mut config = EndpointConfig::new(NodeKey::from_seed([77; 32]));
    config.settings = transport_settings();
    config.seed = Some([7; 32]);
    config.time = Some(Arc::new(move || Duration::from_secs(1_893_456_000) + net.now()));
    let address = (world.net().ip(host), 4400).into();
    let endpoint = Endpoint::over(config, vec![world.net().bind(host, address)?]).await?;
    // A place is free again for a moment, so that it is admitted.
    let someone = sentry.connected().into_iter().find(|peer| {
        let public = |node: &SimNode| node.peer_id() == *peer && node.name().starts_with("public");
        world.nodes().iter().any(public)
    });
    sentry.node().peers().disconnect(someone.unwrap()).await;
    let connection = endpoint.dial(sentry.socket_address(), Some(sentry.peer_id())).await?;
    let answering = connection.clone();
    tokio::spawn(async move {
        while let Ok(stream) = answering.accept_stream().await {
            let _ = stream.negotiate(|_| false, 5 * SECOND).await;
        }
    });
    world.run_for(SECOND).await;
    for name in ["/ipfs/id/1.0.0", "/peerage/exchange/1", "/ipfs/ping/1.0.0", "/ipfs/kad/1.0.0"] {
        let Ok(mut stream) = connection.open_lazy(name).await else { continue };
        let _ = stream.send.write_all(&[2, 8, 30]).await;
        let _ = stream.send.finish();
        let read = async { while let Ok(Some(_)) = stream.recv.read_chunk(65_536).await {} };
        let _ = tokio::time::timeout(SECOND, read).await;
    }
    Ok(())
}

/// In every message of every protocol, to whomever it goes, a private peer is to be recognised by nobody but itself.
/// Contract C-35.
#[test]
fn a_private_peer_stands_in_no_message_to_anyone_but_itself() -> Result<(), Failed> {
    for seed in 1..=3 {
        simulate(seed, async move |world| {
            let Scene { world, sentry, secret, book, refusals } = play(world, true).await?;
            let heard = world.heard();
            let leaks = leaks(&world, &heard, &secret);
            ensure!(leaks.is_empty(), "{} of {}: {:?}", leaks.len(), heard.len(), leaks[0]);
            for (node, marks) in &secret {
                let marked = marks.iter().any(|mark| has(book.as_bytes(), mark));
                ensure!(!marked, "{} stands in the exported book", node.name());
                // It says so itself, to the sentry alone.
                let mut by_it = heard.iter().filter(|said| said.from == node.name());
                ensure!(by_it.all(|said| said.to == sentry.peer_id()), "{} met others", node.name());
            }
            // The search is not blind: each is told where it is seen; others are told of.
            for (node, marks) in &secret {
                let own = |said: &&Said| said.to == node.peer_id() && said.from == "sentry";
                let seen =
                    heard.iter().filter(own).any(|said| marks.iter().any(|mark| has(&said.bytes, mark)));
                ensure!(seen, "{} was not told of itself", node.name());
            }
            let told = |word: &[u8]| {
                let said = heard.iter().filter(|said| said.from == "sentry");
                said.filter(|said| has(&said.bytes, word)).count()
            };
            for name in ["/peerage/hello/1", "/peerage/exchange/1", "/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0"] {
                ensure!(told(name.as_bytes()) > 0, "nothing was said on {name}");
            }
            let public = world.nodes().into_iter().filter(|node| node.name().starts_with("public"));
            let mut named = public.map(|node| told(&node.peer_id().to_bytes()));
            ensure!(named.any(|count| count > 2), "the sentry passed on no record");
            ensure!(refusals > 0, "no refusal named others");
            Ok(())
        })?;
    }
    Ok(())
}

/// The canary: the same peers without the class are told of, so the search above would have found them.
#[test]
fn the_same_peers_are_told_of_when_they_are_not_private() -> Result<(), Failed> {
    simulate(1, async |world| {
        let scene = play(world, false).await?;
        let heard = scene.world.heard();
        for secret in &scene.secret[..2] {
            let leaks = leaks(&scene.world, &heard, std::slice::from_ref(secret));
            ensure!(!leaks.is_empty(), "{} was told to nobody", secret.0.name());
            let marked = secret.1.iter().any(|mark| has(scene.book.as_bytes(), mark));
            ensure!(marked, "{} is not in the exported book", secret.0.name());
        }
        Ok(())
    })
}
