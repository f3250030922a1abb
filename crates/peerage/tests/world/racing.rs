//! Peers with several addresses, of which some lead to sockets that never answer.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use peerage::{CertificateKind, Environment, Node, NodeBuilder, Resolve, TransportSettings, UdpSocket};
use tokio::time::Instant;

use crate::clock::{SECOND, pass};
use crate::network::{Machine, World};

/// So long a dial of one silent address lasts: far longer than what these tests allow a race.
const DIAL_TIMEOUT: Duration = Duration::from_secs(20);
/// How long one address is tried alone.
const STAGGER: Duration = Duration::from_millis(250);

/// Knows one name, which leads to all of these.
#[derive(Debug)]
struct Name(Vec<IpAddr>);

impl Resolve for Name {
    fn addresses(&self, _: String) -> BoxFuture<'_, Result<Vec<IpAddr>, String>> {
        Box::pin(async { Ok(self.0.clone()) })
    }

    fn texts(&self, name: String) -> BoxFuture<'_, Result<Vec<String>, String>> {
        Box::pin(async move { Err(format!("{name} has no TXT records")) })
    }
}

/// A node that dials nobody by itself.
fn dialler(machine: &Arc<Machine>) -> NodeBuilder {
    let mut settings =
        TransportSettings { certificate: CertificateKind::Ed25519, ..TransportSettings::default() };
    settings.dial_timeout = DIAL_TIMEOUT;
    machine.node().max_outbound(0).transport_settings(settings)
}

async fn listener(machine: &Arc<Machine>) -> Node {
    let listening = machine.node().max_outbound(0).listen("/ip4/0.0.0.0/udp/4001/quic-v1");
    listening.start().await.unwrap()
}

/// A socket that takes everything and never answers.
fn silent(world: &Arc<World>, number: u8) -> (UdpSocket, IpAddr) {
    let ip = IpAddr::from([10, 0, 0, number]);
    let machine = world.machine(u64::from(number), &[&ip.to_string()]);
    (machine.bind(SocketAddr::new(ip, 4001), 0).unwrap(), ip)
}

/// When packets went to a host, since the world began.
fn sent_to(world: &World, host: IpAddr) -> Vec<Duration> {
    let to_host = world.packets().into_iter().filter(|(_, _, to, _)| to.ip() == host);
    to_host.map(|(when, ..)| when).collect()
}

/// The silent host was tried first and alone, then the other one was reached, and from then on nothing goes to the silent one.
async fn assert_raced(world: &World, begin: Instant, quiet: IpAddr, real: IpAddr) {
    let took = begin.elapsed();
    assert!(took < SECOND, "the silent address held the dial up for {took:?}");
    let (first, other) = (sent_to(world, quiet)[0], sent_to(world, real)[0]);
    assert_eq!(other - first, STAGGER, "the second address has its turn after the stagger");
    let before = sent_to(world, quiet).len();
    pass(DIAL_TIMEOUT * 3).await;
    let late: Vec<_> = sent_to(world, quiet).split_off(before).into_iter().map(|at| at - first).collect();
    // What says that the attempt is given up may still leave.
    assert!(late.iter().all(|after| *after < took + SECOND), "the loser goes on: {late:?} after it began");
}

#[tokio::test(start_paused = true)]
async fn a_silent_address_in_front_costs_a_dial_the_stagger_and_leaves_no_attempt_behind() {
    let world = World::new();
    let (dialling, listening) = (world.machine(1, &["10.0.0.1"]), world.machine(2, &["10.0.0.2"]));
    let (_socket, quiet) = silent(&world, 3);
    let (node, peer) = (dialler(&dialling).start().await.unwrap(), listener(&listening).await);
    let id = peer.peer_id();
    for host in [3, 2] {
        node.peers().add(&format!("/ip4/10.0.0.{host}/udp/4001/quic-v1/p2p/{id}")).await.unwrap();
    }
    let begin = Instant::now();
    assert_eq!(node.connect_peer(id).await.unwrap(), id);
    assert_raced(&world, begin, quiet, "10.0.0.2".parse().unwrap()).await;
    assert!(node.peers().get(id).is_some() && peer.peers().get(node.peer_id()).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_name_that_leads_to_a_silent_host_first_leads_to_the_peer_after_the_stagger() {
    let world = World::new();
    let (dialling, listening) = (world.machine(1, &["10.0.0.1"]), world.machine(2, &["10.0.0.2"]));
    let (_socket, quiet) = silent(&world, 3);
    let real = "10.0.0.2".parse().unwrap();
    let node = dialler(&dialling).resolver(Arc::new(Name(vec![quiet, real]))).start().await.unwrap();
    let peer = listener(&listening).await;
    let begin = Instant::now();
    let name = format!("/dns/two.example/udp/4001/quic-v1/p2p/{}", peer.peer_id());
    assert_eq!(node.connect(&name).await.unwrap(), peer.peer_id());
    assert_raced(&world, begin, quiet, real).await;
}

#[tokio::test(start_paused = true)]
async fn a_dial_of_silent_addresses_alone_takes_hardly_longer_than_one_of_them() {
    let world = World::new();
    let dialling = world.machine(1, &["10.0.0.1"]);
    let hosts: Vec<_> = (3..6).map(|number| silent(&world, number)).collect();
    let id = listener(&world.machine(2, &["10.0.0.2"])).await.peer_id();
    let node = dialler(&dialling).start().await.unwrap();
    for (_, host) in &hosts {
        node.peers().add(&format!("/ip4/{host}/udp/4001/quic-v1/p2p/{id}")).await.unwrap();
    }
    let begin = Instant::now();
    let error = node.connect_peer(id).await.unwrap_err();
    assert!(error.to_string().contains("20s"), "{error}");
    assert_eq!(begin.elapsed().as_millis(), (DIAL_TIMEOUT + STAGGER * 2).as_millis());
    assert!(hosts.iter().all(|(_, host)| !sent_to(&world, *host).is_empty()));
}

/// A stranger may say that a peer lives behind a name that leads to many hosts, none of which is the peer's.
#[tokio::test(start_paused = true)]
async fn a_name_for_which_only_others_vouch_is_dialled_at_two_places() {
    let world = World::new();
    let hosts: Vec<_> = (20..30).map(|number| silent(&world, number)).collect();
    let ips: Vec<_> = hosts.iter().map(|(_, ip)| *ip).collect();
    let id = listener(&world.machine(2, &["10.0.0.2"])).await.peer_id();
    let name = format!("/dns/many.example/udp/4001/quic-v1/p2p/{id}");
    let stranger = dialler(&world.machine(3, &["10.0.0.3"])).start().await.unwrap();
    stranger.peers().add(&name).await.unwrap();
    let told = stranger.peers().export_book().await.unwrap();
    let node = dialler(&world.machine(1, &["10.0.0.1"])).resolver(Arc::new(Name(ips.clone())));
    let node = node.start().await.unwrap();
    assert_eq!(node.peers().import_book(&told).await.unwrap(), 1);
    let tried = || -> BTreeSet<_> { ips.iter().filter(|ip| !sent_to(&world, **ip).is_empty()).collect() };
    let failed = node.connect_peer(id).await.unwrap_err();
    assert_eq!(tried().len(), 2, "{failed}");
    // What the user names is tried everywhere.
    node.connect(&name).await.unwrap_err();
    assert_eq!(tried().len(), hosts.len());
}
