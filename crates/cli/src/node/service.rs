//! What a running node does for the program: it chats, echoes, takes files, and carries commands out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use peerage::{
    Change, Direction, ListenWatch, MAX_BOOK_BYTES, NetworkSecret, Node, PathStats, PeerEvent, PeerId,
    PeerInfo, PeerStats, RegisterError, Watch,
};
use peerage_wire::chat::{EchoRequest, EchoResponse};
use serde::Serialize;
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::chat::{Chatting, ECHO, MAX_TEXT_BYTES, PATIENCE};
use super::{dht, files, operate};
use crate::control::session::Commands;
use crate::control::{
    Command, ConnectReport, Echo, Event, FileReport, PeerRow, SecretReport, Status, Why, millis,
};
use crate::settings::Settings;
use crate::transfer::inbox::Inbox;
use crate::transfer::retry::{Retries, send_with_retries};
use crate::transfer::send::Patience;
use crate::transfer::source::Source;
use crate::transfer::{PROTOCOL, Progress};

/// Events that wait for a session; one that is further behind is told how many it missed.
const MAX_WAITING_EVENTS: usize = 1024;

/// A node and what the program runs on it.
#[derive(Debug)]
pub(super) struct Service {
    node: Node,
    moniker: String,
    /// The file with the network's secrets.
    secret: Option<PathBuf>,
    start: Instant,
    chatting: Arc<Chatting>,
    events: broadcast::Sender<Event>,
    tasks: Mutex<JoinSet<()>>,
}

impl Service {
    /// Starts to serve on a node. It takes files when there is an inbox.
    ///
    /// # Errors
    /// When the node serves these protocols already.
    pub(super) async fn start(
        node: &Node,
        settings: &Settings,
        inbox: Option<Arc<Inbox>>,
    ) -> Result<Arc<Self>, RegisterError> {
        let moniker = settings.node.moniker.as_deref().unwrap_or_default();
        let events = broadcast::Sender::new(MAX_WAITING_EVENTS);
        let mut tasks = JoinSet::new();
        let chatting = Chatting::start(node, moniker, &settings.chat, &settings.serve)?;
        tasks.spawn(chatting.clone().listen(events.clone()));
        if let Some(inbox) = inbox {
            tasks.spawn(files::take(node.accept(PROTOCOL)?, inbox, events.clone()));
        }
        if let Some(watching) = node.peers().watch().await {
            tasks.spawn(watch_peers(watching, events.clone()));
        }
        tasks.spawn(watch_addresses(node.watch_listen_addresses(), events.clone()));
        Ok(Arc::new(Self {
            node: node.clone(),
            moniker: moniker.to_owned(),
            secret: settings.node.network_secret.as_ref().map(|path| path.0.clone()),
            start: Instant::now(),
            chatting,
            events,
            tasks: Mutex::new(tasks),
        }))
    }

    /// Ends all that the program runs on the node.
    pub(super) fn end(&self) {
        self.tasks.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).abort_all();
    }

    fn status(&self) -> Status {
        Status {
            peer_id: self.node.peer_id().to_string(),
            moniker: self.moniker.clone(),
            network: self.node.network().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_ms: u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX),
            listening: self.node.listen_addresses().iter().map(ToString::to_string).collect(),
            observed: self.node.observed_addresses().iter().map(ToString::to_string).collect(),
            peers: self.node.peers().connected().len(),
        }
    }

    async fn why(&self, peer: &str) -> Result<Why, String> {
        let story = self.node.peers().why(peer_id(peer)?).await.ok_or("the node has been shut down")?;
        Ok(Why { story: value(&story)?, text: story.to_string() })
    }

    async fn import_book(&self, path: &Path) -> Result<usize, String> {
        let read = |error| format!("{} cannot be read: {error}", path.display());
        let file = tokio::fs::File::open(path).await.map_err(read)?;
        let mut book = String::new();
        // One byte more than is taken, so that a longer one is refused and not cut.
        file.take(MAX_BOOK_BYTES as u64 + 1).read_to_string(&mut book).await.map_err(read)?;
        self.node.peers().import_book(&book).await.map_err(|error| error.to_string())
    }

    async fn peers(&self, ping: bool) -> Vec<PeerRow> {
        let peers = self.node.peers().connected();
        let mut pings = JoinSet::new();
        for peer in peers.iter().map(|peer| peer.peer_id).filter(|_| ping) {
            let node = self.node.clone();
            pings.spawn(async move { (peer, node.ping(peer).await.ok()) });
        }
        let times: BTreeMap<_, _> = pings.join_all().await.into_iter().collect();
        let row = |peer: &PeerInfo| {
            let stats = self.node.peers().stats(peer.peer_id);
            row(peer, stats.as_ref(), times.get(&peer.peer_id).copied().flatten())
        };
        peers.iter().map(row).collect()
    }

    fn listening(&self) -> Result<Value, String> {
        value(&self.node.listening().iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    async fn listen(&self, address: &str, on: bool) -> Result<Value, String> {
        let changed = match on {
            true => self.node.listen(address).await.map(|_| ()),
            false => self.node.stop_listening(address).await,
        };
        changed.map_err(|error| error.to_string())?;
        self.listening()
    }

    fn reload_secrets(&self) -> Result<SecretReport, String> {
        let file = self.secret.as_ref().ok_or(
            "this node was started without a network secret: stop it, and start it with --network-secret FILE",
        )?;
        let secrets = NetworkSecret::load(file).map_err(|error| error.to_string())?;
        let count = secrets.len();
        self.node.set_network_secrets(secrets).map_err(|error| error.to_string())?;
        tracing::info!(secrets = count, "the network secrets were read anew");
        Ok(SecretReport { secrets: count })
    }

    async fn allowed(&self) -> Option<Vec<String>> {
        let allowed = self.node.peers().allowed().await;
        allowed.map(|peers| peers.iter().map(ToString::to_string).collect())
    }

    async fn change_allowed(&self, peer: &str, allow: bool) -> Result<Value, String> {
        let (peer, peers) = (peer_id(peer)?, self.node.peers());
        let has_list = if allow { peers.allow(peer).await } else { peers.disallow(peer).await };
        if has_list {
            operate::stored(&self.node).await?;
            return value(&self.allowed().await);
        }
        Err(self.no_list(peer, allow))
    }

    /// A list that begins to exist would cut everybody else off: that is left to a start.
    fn no_list(&self, peer: PeerId, allow: bool) -> String {
        let who = match &self.secret {
            Some(_) => "everyone who proves the network secret may come",
            None => "everyone may come",
        };
        let remedy = match allow {
            true => format!("to admit only some, start it with --allow {peer} and so for each of them"),
            false => format!("to keep one out, use `peerage ban {peer}`"),
        };
        format!("this node has no allow-list, so {who}: {remedy}")
    }

    async fn connect(&self, address: &str) -> Result<ConnectReport, String> {
        let peer = self.node.connect(address).await.map_err(|error| error.to_string())?;
        Ok(ConnectReport { peer: peer.to_string() })
    }

    async fn broadcast(&self, text: &str, to: Option<Vec<String>>) -> Result<Value, String> {
        check_text(text)?;
        let peers: BTreeSet<_> = match to {
            Some(peers) => peers.iter().map(|peer| peer_id(peer)).collect::<Result<_, _>>()?,
            None => self.node.peers().connected().into_iter().map(|peer| peer.peer_id).collect(),
        };
        value(&self.chatting.ask(&peers, text).await)
    }

    async fn request(&self, peer: &str, text: String) -> Result<Echo, String> {
        check_text(&text)?;
        let peer = peer_id(peer)?;
        let start = Instant::now();
        let request = EchoRequest { text };
        let answer = self.node.request_within::<_, EchoResponse>(peer, ECHO, &request, PATIENCE).await;
        let EchoResponse { text, moniker } = answer.map_err(|error| error.to_string())?;
        Ok(Echo { text, moniker, ms: millis(start.elapsed()) })
    }

    async fn send_file(
        &self,
        peer: &str,
        path: &Path,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<FileReport, String> {
        let mut route = files::Connected { node: self.node.clone(), peer: peer_id(peer)? };
        let source = Source::prepare(path, progress).await.map_err(|error| error.to_string())?;
        let start = Instant::now();
        let retries = Retries::up_to(Retries::DEFAULT_MOST);
        let sending = send_with_retries(&source, &mut route, retries, Patience::default(), progress);
        let sent = sending.await.map_err(|error| error.to_string())?;
        Ok(FileReport {
            stored_as: sent.stored_as,
            bytes: source.size(),
            moved: sent.moved,
            sha256: source.sum().to_string(),
            ms: millis(start.elapsed()),
        })
    }
}

impl Commands for Service {
    fn greeting(&self) -> Vec<Event> {
        let addresses = self.node.listen_addresses();
        let listening = addresses.iter().map(|address| Event::Listening { address: address.to_string() });
        // Who came before the session did. One that comes just now may be told twice.
        let connected = self.node.peers().connected();
        let connected = connected.iter().map(|peer| came(peer.peer_id, peer.direction, peer.address));
        listening.chain(connected).collect()
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    async fn carry_out(
        &self,
        command: Command,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Value, String> {
        match command {
            Command::Status => value(&self.status()),
            Command::Peers { ping } => value(&self.peers(ping).await),
            Command::Why { peer } => value(&self.why(&peer).await?),
            Command::BookExport => {
                value(&self.node.peers().export_book().await.map_err(|error| error.to_string())?)
            }
            Command::BookImport { path } => value(&self.import_book(&path).await?),
            Command::Ban { target, reason, seconds } => {
                operate::ban(&self.node, &target, &reason, seconds).await
            }
            Command::Unban { target } => operate::unban(&self.node, &target).await,
            Command::Bans => operate::bans(&self.node).await,
            Command::Class { peer, class, on } => operate::set_class(&self.node, &peer, &class, on).await,
            Command::Classes { class } => operate::classes(&self.node, &class).await,
            Command::Listening => self.listening(),
            Command::Listen { address } => self.listen(&address, true).await,
            Command::StopListening { address } => self.listen(&address, false).await,
            Command::SecretReload => value(&self.reload_secrets()?),
            Command::Metrics => Ok(operate::metrics(&self.node).await),
            Command::Allowed => value(&self.allowed().await),
            Command::Allow { peer } => self.change_allowed(&peer, true).await,
            Command::Disallow { peer } => self.change_allowed(&peer, false).await,
            Command::Connect { address } => value(&self.connect(&address).await?),
            Command::Broadcast { text, to } => self.broadcast(&text, to).await,
            Command::Request { peer, text } => value(&self.request(&peer, text).await?),
            Command::SendFile { peer, path } => value(&self.send_file(&peer, &path, progress).await?),
            Command::Dht { act, options } => value(&dht::carry_out(&self.node, act, options).await?),
            Command::Detach | Command::Stop => Err("this command is for the session".to_owned()),
        }
    }
}

async fn watch_peers(mut watch: Watch, events: broadcast::Sender<Event>) {
    while let Some(change) = watch.next().await {
        let event = match change {
            Change::Event(event) => event_of(event),
            Change::Missed(events) => Some(Event::Missed { events }),
        };
        if let Some(event) = event {
            // Nobody has to be watching.
            let _ = events.send(event);
        }
    }
}

async fn watch_addresses(mut watch: ListenWatch, events: broadcast::Sender<Event>) {
    while let Some(addresses) = watch.next().await {
        let addresses = addresses.iter().map(ToString::to_string).collect();
        let _ = events.send(Event::ListeningChanged { addresses });
    }
}

fn event_of(event: PeerEvent) -> Option<Event> {
    let ms = |time: Option<Duration>| time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    match event {
        PeerEvent::Connected { peer, direction, address, .. } => Some(came(peer, direction, address)),
        PeerEvent::Disconnected { peer, cause, redial_in, .. } => {
            Some(Event::PeerDisconnected { peer: peer.to_string(), cause, redial_ms: ms(redial_in) })
        }
        PeerEvent::DialFailed { address, peer, cause, retry_in, .. } => Some(Event::DialFailed {
            address: address.to_string(),
            peer: peer.map(|peer| peer.to_string()),
            cause,
            retry_ms: ms(retry_in),
        }),
        PeerEvent::RefusedByPeer { peer, reason, alternatives } => Some(Event::RefusedByPeer {
            peer: peer.to_string(),
            reason: reason.name(),
            alternatives: alternatives.iter().map(ToString::to_string).collect(),
        }),
        _ => None,
    }
}

fn came(peer: PeerId, direction: Direction, address: SocketAddr) -> Event {
    Event::PeerConnected {
        peer: peer.to_string(),
        direction: direction.to_string(),
        address: address.to_string(),
    }
}

fn row(peer: &PeerInfo, stats: Option<&PeerStats>, ping: Option<Duration>) -> PeerRow {
    // One that has just gone has moved nothing that could still be told.
    let of = |part: fn(&PathStats) -> u64| stats.map_or(0, |stats| part(&stats.path));
    PeerRow {
        sent_bytes: of(|path| path.sent_bytes),
        received_bytes: of(|path| path.received_bytes),
        sent_packets: of(|path| path.sent_packets),
        lost_packets: of(|path| path.lost_packets),
        peer: peer.peer_id.to_string(),
        direction: peer.direction.to_string(),
        address: peer.address.to_string(),
        rtt_ms: millis(peer.rtt),
        ping_ms: ping.map(millis),
        moniker: peer.about.moniker.clone(),
        agent: peer.about.agent.clone(),
        foreign: peer.foreign,
    }
}

pub(super) fn peer_id(text: &str) -> Result<PeerId, String> {
    text.parse().map_err(|error| format!("{text:?} is not a peer ID: {error}"))
}

fn check_text(text: &str) -> Result<(), String> {
    if text.len() <= MAX_TEXT_BYTES {
        return Ok(());
    }
    Err(format!("the text has {} bytes where at most {MAX_TEXT_BYTES} are sent", text.len()))
}

pub(super) fn value(report: &impl Serialize) -> Result<Value, String> {
    serde_json::to_value(report).map_err(|error| error.to_string())
}
