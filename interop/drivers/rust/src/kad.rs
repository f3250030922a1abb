//! The DHT: what the library's kad is told to do, and what came of it.

use std::collections::{BTreeMap, HashMap};

use libp2p::{
    core::Endpoint,
    identify,
    kad::{
        self, store::MemoryStore, store::RecordStore, GetProvidersOk, GetRecordOk, InboundRequest,
        QueryId, QueryResult, Quorum, Record, RecordKey,
    },
    swarm::{ConnectionId, NetworkBehaviour},
    Multiaddr, PeerId, StreamProtocol,
};
use serde_json::{json, Value};
use tokio::sync::oneshot;

/// Values of the contract lie under keys that begin with it.
const NAMESPACE: &[u8] = b"/interop/";

pub type Behaviour = kad::Behaviour<MemoryStore>;
pub type Mode = kad::Mode;
type Reply = oneshot::Sender<Result<Value, String>>;

/// What the node is in the DHT, and the protocol's whole name.
#[derive(Clone)]
pub struct Options {
    pub mode: Mode,
    pub protocol: StreamProtocol,
}

pub enum Wanted {
    Find(PeerId),
    Put(Vec<u8>, Vec<u8>),
    Get(Vec<u8>),
    Provide(Vec<u8>),
    Providers(Vec<u8>),
}

pub fn behaviour(peer: PeerId, options: &Options) -> Behaviour {
    let mut config = kad::Config::new(options.protocol.clone());
    // No look-ups that nobody asked for, and what comes in is judged here: the library validates nothing by itself.
    config.set_periodic_bootstrap_interval(None).set_record_filtering(kad::StoreInserts::FilterBoth);
    let mut behaviour = Behaviour::with_config(peer, MemoryStore::new(peer), config);
    behaviour.set_mode(Some(options.mode));
    behaviour
}

/// Tells the DHT of a peer that says it serves it: the library leaves that to the application.
pub fn meet(behaviour: &mut Behaviour, peer: PeerId, info: &identify::Info) {
    if behaviour.protocol_names().iter().any(|name| info.protocols.contains(name)) {
        for address in &info.listen_addrs {
            behaviour.add_address(&peer, address.clone());
        }
    }
}

/// A query that somebody waits for.
struct Waiting {
    reply: Reply,
    providers: BTreeMap<PeerId, Vec<Multiaddr>>,
}

/// The queries under way.
#[derive(Default)]
pub struct Queries(HashMap<QueryId, Waiting>);

impl Queries {
    pub fn start(&mut self, behaviour: &mut Behaviour, wanted: Wanted, reply: Reply) {
        let started = match wanted {
            Wanted::Find(peer) => Ok(behaviour.get_closest_peers(peer)),
            Wanted::Put(key, value) => judge(&key, &value).and_then(|()| {
                let put = behaviour.put_record(Record::new(key, value), Quorum::One);
                put.map_err(|error| error.to_string())
            }),
            Wanted::Get(key) => Ok(behaviour.get_record(RecordKey::from(key))),
            Wanted::Provide(key) => {
                behaviour.start_providing(RecordKey::from(key)).map_err(|error| error.to_string())
            }
            Wanted::Providers(key) => Ok(behaviour.get_providers(RecordKey::from(key))),
        };
        match started {
            Ok(query) => drop(self.0.insert(query, Waiting { reply, providers: BTreeMap::new() })),
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    pub fn on_event(&mut self, behaviour: &mut Behaviour, event: kad::Event) {
        match event {
            kad::Event::InboundRequest { request } => keep(behaviour, request),
            kad::Event::OutboundQueryProgressed { id, result, step, .. } => {
                self.on_progress(behaviour, id, result, step.last)
            }
            _ => {}
        }
    }

    fn on_progress(&mut self, behaviour: &mut Behaviour, id: QueryId, result: QueryResult, last: bool) {
        let Some(waiting) = self.0.get_mut(&id) else { return };
        let outcome = match result {
            QueryResult::GetClosestPeers(Ok(closest)) => Ok(json!({
                "closest": closest.peers.iter().map(|peer| contact(&peer.peer_id, &peer.addrs)).collect::<Vec<_>>(),
            })),
            QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(found))) => {
                if judge(found.record.key.as_ref(), &found.record.value).is_err() {
                    return;
                }
                if let Some(mut query) = behaviour.query_mut(&id) {
                    query.finish();
                }
                Ok(json!({"value": hex(&found.record.value)}))
            }
            QueryResult::GetProviders(Ok(found)) => {
                if let GetProvidersOk::FoundProviders { providers, .. } = found {
                    for provider in providers {
                        waiting.providers.insert(provider, addresses(behaviour, provider));
                    }
                }
                if !last {
                    return;
                }
                let all = waiting.providers.iter().map(|(peer, addrs)| contact(peer, addrs));
                Ok(json!({"providers": all.collect::<Vec<_>>()}))
            }
            QueryResult::PutRecord(Ok(_)) | QueryResult::StartProviding(Ok(_)) => Ok(json!({})),
            QueryResult::GetClosestPeers(Err(error)) => Err(error.to_string()),
            QueryResult::GetRecord(Err(error)) => Err(error.to_string()),
            QueryResult::GetProviders(Err(error)) => Err(error.to_string()),
            QueryResult::PutRecord(Err(error)) => Err(error.to_string()),
            QueryResult::StartProviding(Err(error)) => Err(error.to_string()),
            QueryResult::GetRecord(Ok(_)) => Err("no value that is valid was found".into()),
            _ => return,
        };
        if let Some(waiting) = self.0.remove(&id) {
            let _ = waiting.reply.send(outcome);
        }
    }
}

/// Stores what a peer sent, if it is valid.
fn keep(behaviour: &mut Behaviour, request: InboundRequest) {
    let kept = match request {
        InboundRequest::PutRecord { record: Some(record), .. } => {
            judge(record.key.as_ref(), &record.value).and_then(|()| {
                behaviour.store_mut().put(record).map_err(|error| error.to_string())
            })
        }
        InboundRequest::AddProvider { record: Some(record) } => {
            behaviour.store_mut().add_provider(record).map_err(|error| error.to_string())
        }
        _ => Ok(()),
    };
    if let Err(error) = kept {
        eprintln!("kad: not stored: {error}");
    }
}

/// The contract's validator.
fn judge(key: &[u8], value: &[u8]) -> Result<(), String> {
    match key.starts_with(NAMESPACE) && !value.is_empty() {
        true => Ok(()),
        false => Err("a key outside of /interop/, or an empty value".into()),
    }
}

/// What the library would dial for a peer that a query under way has heard of: it tells these addresses in no other way.
fn addresses(behaviour: &mut Behaviour, peer: PeerId) -> Vec<Multiaddr> {
    let nothing = ConnectionId::new_unchecked(0);
    let known = behaviour.handle_pending_outbound_connection(nothing, Some(peer), &[], Endpoint::Dialer);
    known.unwrap_or_default()
}

fn contact(peer: &PeerId, addresses: &[Multiaddr]) -> Value {
    let addresses: Vec<_> = addresses.iter().map(Multiaddr::to_string).collect();
    json!({"peer": peer.to_string(), "addrs": addresses})
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of hexadecimal text.
pub fn unhex(text: &str) -> Result<Vec<u8>, String> {
    let pairs = text.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).map_err(|error| error.to_string())?;
        u8::from_str_radix(pair, 16).map_err(|error| format!("{pair}: {error}"))
    });
    pairs.collect()
}
