//! The DHT: our driver's commands, and the checks of the matrix.

use std::time::Duration;

use peerage::dht::{Contact, Mode};
use peerage::{DhtConfig, Node, PeerId};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::Outcome;
use crate::matrix::expect;
use crate::process::{Driver, Start};

/// Our network's own name of the protocol.
pub(crate) const PROTOCOL: &str = "/interop/kad/1.0.0";
/// libp2p's own, which is all that py knows. The matrix uses it between its own nodes only.
pub(crate) const LIBP2P_PROTOCOL: &str = "/ipfs/kad/1.0.0";
/// Values lie under `/interop/any/…`: for us a namespace of our network, for the others their namespace `interop`.
const VALUES: &str = "any";
/// Bytes of a value.
const VALUE_BYTES: usize = 600;
/// Providers that are asked for: more than there are.
const PROVIDERS: usize = 20;
/// ADD_PROVIDER has no answer: how long it may take to be seen.
const PROVIDED_DEADLINE: Duration = Duration::from_secs(5);
/// How often a condition that nobody reports is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// For a command: foreign nodes wait for this and that before they ask, and machines are busy.
const TIMEOUT_MS: u64 = 30_000;

/// What our node is in the DHT, from the contract's arguments.
pub(crate) fn config(mode: &str, protocol: &str) -> Outcome<DhtConfig> {
    let mut config = DhtConfig::default().any_value(VALUES);
    config.mode = Some(match mode {
        "client" => Mode::Client,
        "server" => Mode::Server,
        other => return Err(format!("{other:?} is no mode: client or server").into()),
    });
    config.libp2p = match protocol {
        PROTOCOL => false,
        LIBP2P_PROTOCOL => true,
        other => return Err(format!("{other:?} is none of {PROTOCOL} and {LIBP2P_PROTOCOL}").into()),
    };
    Ok(config)
}

/// Waits until the routing table holds a peer.
pub(crate) async fn known(node: &Node, peer: PeerId) -> Outcome<Value> {
    while !node.dht().table().await?.iter().any(|(contact, _)| *contact.peer() == peer) {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(json!({}))
}

pub(crate) async fn find(node: &Node, peer: PeerId) -> Outcome<Value> {
    let (found, _) = node.dht().find_peer(peer).await?;
    Ok(contact(&found))
}

pub(crate) async fn put(node: &Node, key: &str, value: &str) -> Outcome<Value> {
    node.dht().put_raw(key, unhex(value)?).quorum(1).await?;
    Ok(json!({}))
}

pub(crate) async fn get(node: &Node, key: &str) -> Outcome<Value> {
    let (value, _) = node.dht().get_raw(key).await?;
    Ok(json!({"value": hex(&value)}))
}

/// Publishes a signed record of ours under a name of this node's: ours alone, no command of the contract.
pub(crate) async fn publish(node: &Node, name: &str, value: &str) -> Outcome<Value> {
    node.dht().put(name.to_owned(), unhex(value)?).quorum(1).await?;
    Ok(json!({}))
}

/// Reads such a record of another node's, and checks its signature.
pub(crate) async fn fetch(node: &Node, peer: PeerId, name: &str) -> Outcome<Value> {
    let (value, _) = node.dht().get(peer, name.to_owned()).await?;
    Ok(json!({"value": hex(&value.body)}))
}

pub(crate) async fn provide(node: &Node, key: &str) -> Outcome<Value> {
    node.dht().provide(unhex(key)?).quorum(1).await?;
    Ok(json!({}))
}

pub(crate) async fn providers(node: &Node, key: &str) -> Outcome<Value> {
    let (found, _) = node.dht().providers(unhex(key)?, PROVIDERS).await?;
    Ok(json!({"providers": found.iter().map(contact).collect::<Vec<_>>()}))
}

fn contact(contact: &Contact) -> Value {
    let addresses: Vec<_> = contact.addresses().iter().map(ToString::to_string).collect();
    json!({"peer": contact.peer().to_string(), "addrs": addresses})
}

/// One thing that is tried in a DHT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum KadCheck {
    /// PUT_VALUE, and GET_VALUE by another node: the same bytes.
    Value,
    /// The same with a record that our publisher signs and our other node checks, a newer one after it.
    Record,
    /// ADD_PROVIDER, and GET_PROVIDERS by another node: the provider, and where it listens.
    Providers,
    /// FIND_NODE, for a node that only the server knows: where it listens.
    Find,
}

/// A DHT of one server and of members, all of the other implementation: what these ask for, nobody but the server can know.
///
/// One member stores at the server and stays, as a client, which cannot be asked; another client asks. A server beside the first one comes last.
pub(crate) struct Network {
    members: Start,
    servers: Start,
    protocol: &'static str,
    /// Started when the first thing is tried, or why not.
    nodes: Option<Result<Nodes, String>>,
}

impl Network {
    /// A network whose nodes do not run yet.
    pub(crate) fn new(members: Start, servers: Start, protocol: &'static str) -> Self {
        Self { members, servers, protocol, nodes: None }
    }

    /// Tries one thing.
    pub(crate) async fn perform(&mut self, check: KadCheck) -> Outcome<()> {
        let nodes = match &mut self.nodes {
            Some(nodes) => nodes,
            None => {
                let started = Nodes::start(&self.members, &self.servers, self.protocol).await;
                self.nodes.insert(started.map_err(|error| error.to_string()))
            }
        };
        let nodes = nodes.as_mut().map_err(|error| error.clone())?;
        match check {
            KadCheck::Value => nodes.value().await,
            KadCheck::Record => nodes.record().await,
            KadCheck::Providers => nodes.providers().await,
            KadCheck::Find => nodes.find(&self.members, self.protocol).await,
        }
    }

    /// Ends the nodes in good order.
    pub(crate) async fn quit(self) -> Outcome<()> {
        let Some(Ok(Nodes { server, publisher, client, sought })) = self.nodes else { return Ok(()) };
        let members = [("sought node", sought), ("client", Some(client)), ("publisher", Some(publisher))];
        for (name, driver) in members.into_iter().chain([("server", Some(server))]) {
            if let Some(driver) = driver {
                driver.quit().await.map_err(|error| format!("the {name} of the DHT: {error}"))?;
            }
        }
        Ok(())
    }
}

struct Nodes {
    server: Driver,
    publisher: Driver,
    client: Driver,
    sought: Option<Driver>,
}

impl Nodes {
    /// Starts them, and waits until the members know who serves.
    async fn start(members: &Start, servers: &Start, protocol: &str) -> Outcome<Self> {
        let (server, mut publisher, mut client) = tokio::try_join!(
            node(servers, "server", protocol, "server"),
            node(members, "client", protocol, "publisher"),
            node(members, "client", protocol, "client"),
        )?;
        join(&mut publisher, &server).await?;
        join(&mut client, &server).await?;
        Ok(Self { server, publisher, client, sought: None })
    }

    async fn value(&mut self) -> Outcome<()> {
        let mut value = vec![0; VALUE_BYTES];
        getrandom::fill(&mut value)?;
        let (key, value) = (format!("/interop/{VALUES}/{}", hex(&value[..8])), hex(&value));
        let put = ask(&mut self.publisher, json!({"do": "kad_put", "key": key, "value": value})).await;
        put.map_err(|error| format!("PUT_VALUE: {error}"))?;
        let get = |key: &str| json!({"do": "kad_get", "key": key});
        let got = ask(&mut self.client, get(&key)).await.map_err(|error| format!("GET_VALUE: {error}"))?;
        expect(got["value"] == json!(value), || format!("another value came: {got}"))?;
        match ask(&mut self.client, get(&format!("{key}-not"))).await {
            Ok(got) => Err(format!("a value came that nobody stored: {got}").into()),
            Err(_) => Ok(()),
        }
    }

    async fn record(&mut self) -> Outcome<()> {
        for value in ["0a", "0b0c"] {
            let put = json!({"do": "kad_publish", "key": "colour", "value": value});
            ask(&mut self.publisher, put).await.map_err(|error| format!("PUT_VALUE: {error}"))?;
            let get = json!({"do": "kad_fetch", "peer": self.publisher.peer, "key": "colour"});
            let got = ask(&mut self.client, get).await.map_err(|error| format!("GET_VALUE: {error}"))?;
            expect(got["value"] == json!(value), || format!("{value} was published, but this came: {got}"))?;
        }
        Ok(())
    }

    async fn providers(&mut self) -> Outcome<()> {
        let mut name = [0; 32];
        getrandom::fill(&mut name)?;
        // A multihash: SHA-256, 32 bytes.
        let key = format!("1220{}", hex(&Sha256::digest(name)));
        let provided = ask(&mut self.publisher, json!({"do": "kad_provide", "key": key})).await;
        provided.map_err(|error| format!("ADD_PROVIDER: {error}"))?;
        // The next request is answered by its own answer, whatever a server says to the one before.
        let put = json!({"do": "kad_put", "key": format!("/interop/{VALUES}/{key}"), "value": key});
        let put = ask(&mut self.publisher, put).await;
        put.map_err(|error| format!("PUT_VALUE after ADD_PROVIDER: {error}"))?;
        let start = Instant::now();
        loop {
            let found = ask(&mut self.client, json!({"do": "kad_providers", "key": key})).await;
            let found = found.map_err(|error| format!("GET_PROVIDERS: {error}"));
            match found.as_ref().map(|found| found["providers"].as_array().map(Vec::as_slice)) {
                Ok(Some([provider])) => return is(provider, &self.publisher),
                Ok(Some([])) | Err(_) if start.elapsed() < PROVIDED_DEADLINE => {}
                _ => return Err(format!("one node provides it: {}", found?).into()),
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn find(&mut self, members: &Start, protocol: &str) -> Outcome<()> {
        let sought = self.sought.insert(node(members, "server", protocol, "sought").await?);
        join(sought, &self.server).await?;
        let known = ask(&mut self.server, json!({"do": "kad_known", "peer": sought.peer})).await;
        known.map_err(|error| format!("the server did not admit the node that is sought: {error}"))?;
        let found = ask(&mut self.client, json!({"do": "kad_find", "peer": sought.peer})).await?;
        is(&found, sought)
    }
}

async fn node(start: &Start, mode: &str, protocol: &str, name: &str) -> Outcome<Driver> {
    let arguments = ["--kad", mode, "--kad-protocol", protocol];
    let driver = start.named(name).node(&arguments).await;
    driver.map_err(|error| format!("the {name} of the DHT did not start: {error}").into())
}

/// Connects a member to the server, and waits until it knows that one as such.
async fn join(member: &mut Driver, server: &Driver) -> Outcome<()> {
    ask(member, json!({"do": "dial", "addr": server.address}))
        .await
        .map_err(|error| format!("the server of the DHT was not reached: {error}"))?;
    ask(member, json!({"do": "kad_known", "peer": server.peer}))
        .await
        .map_err(|error| format!("a member did not admit the server to its table: {error}"))?;
    Ok(())
}

async fn ask(driver: &mut Driver, mut command: Value) -> Outcome<Value> {
    command["timeout_ms"] = json!(TIMEOUT_MS);
    driver.ask(command).await
}

/// Whether that is who was found, at an address where it listens.
fn is(found: &Value, driver: &Driver) -> Outcome<()> {
    expect(found["peer"] == json!(driver.peer), || format!("{} was meant: {found}", driver.peer))?;
    let without_peer = |address: &str| address.split("/p2p/").next().unwrap_or_default().to_owned();
    let listens = without_peer(&driver.address);
    let told = found["addrs"].as_array().is_some_and(|all| {
        all.iter().filter_map(Value::as_str).any(|address| without_peer(address) == listens)
    });
    expect(told, || format!("{listens} is not among the addresses: {found}"))
}

/// The protocol that an implementation and ours have in common.
pub(crate) fn protocol_with(implementation: &str) -> &'static str {
    if implementation == "py" { LIBP2P_PROTOCOL } else { PROTOCOL }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Outcome<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?)).collect()
}
