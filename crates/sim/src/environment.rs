//! What a simulated machine gives its node: sockets of the simulated network, a skewed clock, seeded randomness, and names from a table.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use peerage::quinn::{Runtime, TokioRuntime};
use peerage::{Environment, Resolve, Tap, UdpSocket};
use peerage_machine::Random;

use crate::net::{HostId, SimNet};

/// The world of one node from one start to its end.
pub(crate) struct SimEnvironment {
    pub(crate) net: SimNet,
    pub(crate) host: HostId,
    pub(crate) skew: Skew,
    pub(crate) random: Mutex<Random>,
    pub(crate) names: Names,
    pub(crate) tap: Option<Arc<dyn Tap>>,
}

impl fmt::Debug for SimEnvironment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimEnvironment({:?})", self.host)
    }
}

/// How far a node's clock is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skew {
    /// So far ahead of the others'.
    Ahead(Duration),
    /// So far behind the others'.
    Behind(Duration),
}

impl Environment for SimEnvironment {
    fn bind(&self, address: SocketAddr, _: usize) -> io::Result<UdpSocket> {
        Ok(UdpSocket { socket: self.net.bind(self.host, address)?, buffers: None })
    }

    fn runtime(&self) -> Arc<dyn Runtime> {
        // Its timers and its clock are those of tokio, which are paused.
        Arc::new(TokioRuntime)
    }

    fn interfaces(&self) -> io::Result<Vec<IpAddr>> {
        Ok(self.net.ips(self.host))
    }

    fn resolver(&self) -> Arc<dyn Resolve> {
        Arc::new(self.names.clone())
    }

    fn unix_now(&self) -> Duration {
        let now = YEAR_2030 + self.net.now();
        match self.skew {
            Skew::Ahead(by) => now + by,
            Skew::Behind(by) => now.saturating_sub(by),
        }
    }

    fn entropy(&self, bytes: &mut [u8]) -> io::Result<()> {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).fill(bytes);
        Ok(())
    }

    fn tap(&self) -> Option<Arc<dyn Tap>> {
        self.tap.clone()
    }
}

/// The names of a simulated world. Clones share one table; look-ups take no time.
#[derive(Debug, Clone, Default)]
pub struct Names {
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    hosts: BTreeMap<String, Vec<IpAddr>>,
    texts: BTreeMap<String, Vec<String>>,
}

impl Names {
    /// Gives a host's name its addresses.
    pub fn set_addresses(&self, name: &str, ips: &[IpAddr]) {
        self.with(|table| table.hosts.insert(name.to_owned(), ips.to_vec()));
    }

    /// Gives a name its TXT records, as `/dnsaddr` needs them.
    pub fn set_texts(&self, name: &str, texts: &[String]) {
        self.with(|table| table.texts.insert(name.to_owned(), texts.to_vec()));
    }

    /// Forgets a name.
    pub fn remove(&self, name: &str) {
        self.with(|table| {
            table.hosts.remove(name);
            table.texts.remove(name);
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut Table) -> T) -> T {
        act(&mut self.table.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Resolve for Names {
    fn addresses(&self, name: String) -> BoxFuture<'_, Result<Vec<IpAddr>, String>> {
        let found = self.with(|table| table.hosts.get(&name).cloned());
        Box::pin(async move { found.ok_or_else(|| format!("no host is called {name}")) })
    }

    fn texts(&self, name: String) -> BoxFuture<'_, Result<Vec<String>, String>> {
        let found = self.with(|table| table.texts.get(&name).cloned());
        Box::pin(async move { found.ok_or_else(|| format!("{name} has no TXT records")) })
    }
}

/// When simulated worlds begin, since the Unix epoch.
const YEAR_2030: Duration = Duration::from_secs(1_893_456_000);
