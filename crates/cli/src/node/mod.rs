//! `peerage node`: a node in the foreground.

mod chat;
mod dht;
pub(crate) mod files;
mod operate;
mod service;
#[cfg(test)]
mod simulated;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use peerage::{ForeignPolicy, NetworkSecret, Node, NodeBuilder};
use tokio::io::BufReader;
use tokio::net::TcpListener;

use crate::args::{Control, NodeArgs};
use crate::control::session::{self, End, Tell};
use crate::control::socket::Listener;
use crate::failure::Failure;
use crate::settings::{self, LogText, PathText, Settings};
use crate::signals::Signals;
use crate::term::say;
use crate::transfer::inbox::Inbox;
use crate::{logging, metrics};
pub(crate) use chat::ChatLimits;
use service::Service;

/// Where a node listens that was told nothing else.
const DEFAULT_LISTEN: &str = "/ip4/0.0.0.0/udp/0/quic-v1";
/// What a node logs that was told nothing else.
const DEFAULT_LOG: &str = "info";
/// A node that was told to stop has ended after so long, whatever its peers do, unless more time was given to it to send what is queued.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
/// What a stop takes beyond that time: peers, store and tasks have a second each.
const STOP_AFTER_DRAIN: Duration = Duration::from_secs(4);

/// Carries out `peerage node`.
pub(crate) async fn run(args: NodeArgs) -> Result<(), Failure> {
    let (control, foreign) = (args.control, args.foreign.map(ForeignPolicy::from));
    let settings = settings(args)?;
    logging::start(settings.node.log.as_ref().map_or(DEFAULT_LOG, |log| &log.0));
    let mut signals = Signals::listen()?;
    let inbox =
        settings.node.inbox.as_ref().map(|folder| Inbox::open(&folder.0, settings.inbox.clone())).transpose();
    let inbox = inbox.map_err(Failure::failed)?;
    let data = data_dir(settings.node.data.clone())?;
    let metrics = open_metrics(settings.node.metrics).await?;
    let node = start(&settings, foreign, data.clone()).await?;
    let service = Service::start(&node, &settings, inbox).await.map_err(Failure::failed)?;
    let socket = open_socket(&data);
    tokio::select! {
        biased;
        signal = signals.next() => tracing::debug!(signal, "stopping"),
        () = tell_addresses(control, &node) => {}
        () = obey(control, &service) => {}
        () = serve_socket(socket.as_ref(), &service) => {}
        () = serve_metrics(metrics, &node) => {}
    }
    signals.exit_at_next();
    drop(socket);
    let within = STOP_DEADLINE.max(settings.node_limits.drain_timeout + STOP_AFTER_DRAIN);
    stop(service, node, within).await
}

/// The settings of the file, where one is named, with the flags over them.
fn settings(args: NodeArgs) -> Result<Settings, Failure> {
    let mut settings = match &args.config {
        Some(path) => settings::load(path).map_err(Failure::usage)?,
        None => Settings::default(),
    };
    let node = &mut settings.node;
    override_list(&mut node.listen, args.listen);
    override_list(&mut node.seed, args.seed);
    override_list(&mut node.seeds, args.seeds.into_iter().map(PathText).collect());
    override_list(&mut node.persistent, args.persistent);
    override_list(&mut node.private, args.private);
    override_list(&mut node.unconditional, args.unconditional);
    override_list(&mut node.allow, args.allow);
    node.network_secret = args.network_secret.map(PathText).or(node.network_secret.take());
    node.data = args.data.map(PathText).or(node.data.take());
    node.inbox = args.inbox.map(PathText).or(node.inbox.take());
    node.network = args.network.or(node.network.take());
    node.moniker = args.moniker.or(node.moniker.take());
    node.metrics = args.metrics.or(node.metrics);
    node.serve_bench |= args.serve_bench;
    node.dht_libp2p |= args.dht_libp2p;
    node.dht = args.dht.unwrap_or(node.dht);
    node.log = args.log.map(LogText).or(node.log.take());
    if let Some(most) = args.max_inbound {
        settings.peers.max_inbound = most.into();
    }
    if let Some(most) = args.max_outbound {
        settings.peers.max_outbound = most.into();
    }
    if let Some(most) = args.inbox_max_bytes {
        if settings.node.inbox.is_none() {
            return Err(Failure::usage(
                "--inbox-max-bytes bounds an inbox: name its folder with --inbox DIR",
            ));
        }
        settings.inbox.max_bytes = most;
    }
    if let Some(seconds) = args.idle_timeout {
        settings.transport.set_idle_timeout(Duration::from_secs(seconds));
    }
    Ok(settings)
}

/// What the flags list takes the place of what the file lists.
fn override_list<T>(list: &mut Vec<T>, flags: Vec<T>) {
    if !flags.is_empty() {
        *list = flags;
    }
}

async fn start(settings: &Settings, foreign: Option<ForeignPolicy>, data: PathBuf) -> Result<Node, Failure> {
    let mut builder = describe(Node::builder().data_dir(data), settings, foreign)?;
    if settings.node.listen.is_empty() {
        builder = builder.listen(DEFAULT_LISTEN);
    }
    Ok(builder.start().await?)
}

/// All that the settings say of a node, but for what it keeps where.
fn describe(
    builder: NodeBuilder,
    settings: &Settings,
    foreign: Option<ForeignPolicy>,
) -> Result<NodeBuilder, Failure> {
    let node = &settings.node;
    let mut builder = builder
        .peers_config(settings.peers.clone())
        .transport_settings(settings.transport.clone())
        .call_limits(settings.requests.clone())
        .request_limits(settings.requests_in_all.clone())
        .limits(settings.node_limits.clone())
        .bench_limits(settings.bench.clone())
        .memory(settings.memory.clone());
    if let Some(dht) = settings.dht() {
        builder = builder.dht(dht);
    }
    if node.serve_bench {
        builder = builder.serve_bench();
    }
    if let Some(name) = &node.network {
        builder = builder.network(name);
    }
    if let Some(path) = &node.network_secret {
        builder = builder.network_secrets(NetworkSecret::load(&path.0).map_err(Failure::usage)?);
    }
    if !node.allow.is_empty() {
        builder = builder.allow_list(node.allow.iter().copied());
    }
    if let Some(policy) = foreign {
        builder = builder.foreign(policy);
    }
    if let Some(name) = &node.moniker {
        builder = builder.moniker(name);
    }
    for address in &node.listen {
        builder = builder.listen(address);
    }
    for address in &node.seed {
        builder = builder.seed(address);
    }
    for file in &node.seeds {
        builder = builder.seed_file(&file.0);
    }
    for address in &node.persistent {
        builder = builder.persistent(address);
    }
    builder = node.private.iter().fold(builder, |builder, peer| builder.private(*peer));
    Ok(node.unconditional.iter().fold(builder, |builder, peer| builder.unconditional(*peer)))
}

/// Prints where the node can be reached, and each change of it.
async fn tell_addresses(control: Option<Control>, node: &Node) {
    let mut watch = node.watch_listen_addresses();
    let mut told = Vec::new();
    let mut now = node.listen_addresses();
    while control.is_none() {
        told.iter().filter(|old| !now.contains(old)).for_each(|old| say(&format!("not listening {old}")));
        now.iter().filter(|new| !told.contains(new)).for_each(|new| say(&format!("listening {new}")));
        told = std::mem::take(&mut now);
        match watch.next().await {
            Some(addresses) => now = addresses,
            None => break,
        }
    }
    // In a session events tell; and whatever ends the node ends this too.
    std::future::pending().await
}

/// A node without its socket still does its work.
fn open_socket(data: &Path) -> Option<Listener> {
    Listener::open(data)
        .inspect_err(|error| {
            tracing::warn!(%error, data = %data.display(), "the control socket cannot be opened: commands such as `peerage status` will not reach this node");
        })
        .ok()
}

async fn open_metrics(address: Option<SocketAddr>) -> Result<Option<TcpListener>, Failure> {
    match address {
        Some(address) => metrics::listen(address).await.map(Some).map_err(Failure::failed),
        None => Ok(None),
    }
}

async fn serve_metrics(listener: Option<TcpListener>, node: &Node) {
    match listener {
        Some(listener) => metrics::serve(listener, node.clone()).await,
        None => std::future::pending().await,
    }
}

/// Carries out what comes over the socket until a session says stop.
async fn serve_socket(socket: Option<&Listener>, service: &Arc<Service>) {
    match socket {
        Some(socket) => socket.serve(service.clone()).await,
        None => std::future::pending().await,
    }
}

/// Carries commands on stdin out until one says stop, or their end comes without a detach before it.
async fn obey(control: Option<Control>, service: &Arc<Service>) {
    let end = match control {
        None => return std::future::pending().await,
        Some(Control::Stdio) => {
            let (input, output) = (BufReader::new(tokio::io::stdin()), tokio::io::stdout());
            session::serve(service.clone(), input, output, Tell::Events).await
        }
    };
    if end == (End::Input { detached: true }) {
        std::future::pending().await
    }
}

async fn stop(service: Arc<Service>, node: Node, within: Duration) -> Result<(), Failure> {
    service.end();
    drop(service);
    match tokio::time::timeout(within, node.close()).await {
        Ok(left) => {
            let (lost, unknown) = (left.lost_messages, left.unknown_messages);
            if lost + unknown > 0 {
                tracing::warn!(lost, unknown, "messages were not delivered for certain at the stop");
            }
            if left.unfinished_tasks > 0 {
                tracing::warn!(tasks = left.unfinished_tasks, "tasks did not end in time at the stop");
            }
            Ok(())
        }
        Err(_) => Err(Failure::failed(format!("the node did not stop within {} s", within.as_secs()))),
    }
}

pub(crate) fn data_dir(given: Option<PathText>) -> Result<PathBuf, Failure> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    given
        .map(|path| path.0)
        .or_else(|| absolute("XDG_DATA_HOME").map(|data| data.join("peerage")))
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share/peerage")))
        .ok_or_else(|| Failure::usage("neither XDG_DATA_HOME nor HOME is set: name a folder with --data DIR"))
}
