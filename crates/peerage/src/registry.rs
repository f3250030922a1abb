//! What this node serves, by protocol name.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, RwLock};

use peerage_transport::Stream;

use crate::bench::Ledger;
use crate::channel::ChannelCore;
use crate::dht::DhtCore;
use crate::error::RegisterError;
use crate::peer::Peer;
use crate::request::Handler;
use crate::streams::Acceptor;
use crate::watch;

/// Longest protocol name, in bytes. libp2p's line limit is 1,024; shorter names leave room for the framing.
pub(crate) const MAX_NAME: usize = 256;

/// Who takes an incoming stream.
#[derive(Clone)]
pub(crate) enum Service {
    /// The hello, before admission.
    Hello,
    /// `/ipfs/ping/1.0.0`.
    Ping,
    /// `/ipfs/id/1.0.0`.
    Identify,
    /// `/ipfs/id/push/1.0.0`.
    IdentifyPush,
    /// Peer exchange.
    Exchange,
    /// The DHT, where this node serves it.
    Dht(Arc<DhtCore>),
    /// `/perf/1.0.0`, where it is switched on.
    Perf(Arc<Ledger>),
    /// A channel of the application.
    Channel(Arc<ChannelCore>),
    /// A request handler of the application.
    Requests(Arc<Handler>),
    /// Raw streams for the application.
    Streams(Arc<Acceptor>),
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Service::Hello => "Hello",
            Service::Ping => "Ping",
            Service::Identify => "Identify",
            Service::IdentifyPush => "IdentifyPush",
            Service::Exchange => "Exchange",
            Service::Dht(_) => "Dht",
            Service::Perf(_) => "Perf",
            Service::Channel(_) => "Channel",
            Service::Requests(_) => "Requests",
            Service::Streams(_) => "Streams",
        })
    }
}

/// The table of services. Readers take no lock that a writer holds for long.
#[derive(Debug)]
pub(crate) struct Registry {
    services: RwLock<BTreeMap<Arc<str>, Service>>,
    /// Counts the changes, for identify push.
    changes: watch::Sender<u64>,
}

impl Registry {
    /// A table with Peerage's own protocols.
    pub(crate) fn new() -> Self {
        use crate::protocols::{exchange, identify, ping};
        let own = [
            (crate::hello::PROTOCOL, Service::Hello),
            (ping::PROTOCOL, Service::Ping),
            (identify::PROTOCOL, Service::Identify),
            (identify::PUSH_PROTOCOL, Service::IdentifyPush),
            (exchange::PROTOCOL, Service::Exchange),
        ];
        let services = own.into_iter().map(|(name, service)| (Arc::from(name), service)).collect();
        Self { services: RwLock::new(services), changes: watch::Sender::new(0) }
    }

    /// Serves `name`.
    pub(crate) fn add(&self, name: &str, service: Service) -> Result<(), RegisterError> {
        if !name.starts_with('/') || name.len() > MAX_NAME || name.contains(['\n', '\r', '\0']) {
            return Err(RegisterError::Name { name: name.to_owned() });
        }
        let mut services = self.services.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        if services.contains_key(name) {
            return Err(RegisterError::Taken { name: name.to_owned() });
        }
        services.insert(Arc::from(name), service);
        drop(services);
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Stops serving `name`.
    pub(crate) fn remove(&self, name: &str) {
        let mut services = self.services.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        services.remove(name);
        drop(services);
        self.changes.send_modify(|count| *count += 1);
    }

    pub(crate) fn get(&self, name: &str) -> Option<Service> {
        self.services.read().unwrap_or_else(|poisoned| poisoned.into_inner()).get(name).cloned()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.services.read().unwrap_or_else(|poisoned| poisoned.into_inner()).contains_key(name)
    }

    /// Every name, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let services = self.services.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        services.keys().map(|name| name.to_string()).collect()
    }

    /// Names of what the node itself serves beyond what every node does, for the hello.
    pub(crate) fn node_services(&self) -> Vec<String> {
        let services = self.services.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        let own = |service: &Service| matches!(service, Service::Dht(_));
        services.iter().filter(|(_, service)| own(service)).map(|(name, _)| name.to_string()).collect()
    }

    /// The registered channels.
    pub(crate) fn channels(&self) -> Vec<Arc<ChannelCore>> {
        let services = self.services.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        let channel = |service: &Service| match service {
            Service::Channel(core) => Some(core.clone()),
            _ => None,
        };
        services.values().filter_map(channel).collect()
    }

    /// Leaves to their tasks what has been lent to receivers for too long. Whether some is still lent.
    pub(crate) fn hand_back(&self) -> bool {
        self.channels().iter().fold(false, |some, channel| channel.inbox.receivers.hand_back() | some)
    }

    /// Requests that wait for a place of their protocol.
    pub(crate) fn requests_waiting(&self) -> usize {
        let services = self.services.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        let waiting = |service: &Service| match service {
            Service::Requests(handler) => handler.waiting(),
            _ => 0,
        };
        services.values().map(waiting).sum()
    }

    /// Tells of changes.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Ends every channel and acceptor, so that those who wait on them learn of the shutdown, and lets go of the request handlers: they may hold a handle
    /// to the node that holds them.
    pub(crate) fn close(&self) {
        let mut handlers = Vec::new();
        let mut services = self.services.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        services.retain(|_, service| {
            match service {
                Service::Channel(core) => core.inbox.close(),
                Service::Streams(acceptor) => acceptor.close(),
                Service::Requests(handler) => handlers.push(handler.clone()),
                _ => {}
            }
            !matches!(service, Service::Requests(_))
        });
        // Dropped last: the last handle to the node closes this table again.
        drop(services);
    }
}

/// Serves one stream of an admitted peer to its end. A channel is served by a task of its own: it lasts as long as the connection, and needs
/// far less memory than the largest of the others.
pub(crate) async fn serve(peer: Arc<Peer>, service: Service, stream: Stream) {
    match service {
        // A second hello on a connection has no meaning.
        Service::Hello => drop(stream),
        Service::Ping => crate::protocols::ping::serve(&peer, stream).await,
        Service::Identify => crate::protocols::identify::serve(&peer, stream).await,
        Service::IdentifyPush => crate::protocols::identify::receive_push(&peer, stream).await,
        Service::Exchange => crate::protocols::exchange::serve(&peer, stream).await,
        Service::Dht(core) => crate::dht::serve(&peer, &core, stream).await,
        Service::Perf(ledger) => crate::protocols::perf::serve(&peer, &ledger, stream).await,
        Service::Channel(core) => {
            crate::channel::start_reader(&peer, core, stream);
        }
        Service::Requests(handler) => handler.serve(&peer, stream).await,
        Service::Streams(acceptor) => acceptor.take(&peer, stream).await,
    }
}
