//! NAT boxes: the four classical kinds (RFC 3489 § 5), as a pure table with timeouts.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use peerage_machine::Random;

/// Whom a mapping lets in, and whether it is shared by all remotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NatKind {
    /// One mapping per inside address; anyone may send to it.
    FullCone,
    /// One mapping per inside address; only IP addresses that were sent to may answer, from any port.
    Restricted,
    /// One mapping per inside address; only addresses and ports that were sent to may answer.
    PortRestricted,
    /// One mapping per inside address and remote; only that remote may answer.
    Symmetric,
}

/// What a NAT box is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nat {
    /// Its kind.
    pub kind: NatKind,
    /// After so long without an outbound packet a mapping, or a permission in it, is gone. Inbound packets don't refresh it (RFC 4787 REQ-6).
    pub timeout: Duration,
    /// Mappings at once; packets that would need more are dropped.
    pub max_mappings: usize,
}

impl Nat {
    /// A box of this kind, with a timeout of 60 s.
    pub fn new(kind: NatKind) -> Self {
        Self { kind, timeout: Duration::from_secs(60), max_mappings: 4096 }
    }

    /// With another timeout.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }
}

/// A NAT box at work.
#[derive(Debug)]
pub(crate) struct NatBox {
    nat: Nat,
    public: IpAddr,
    mappings: BTreeMap<Inside, Mapping>,
    /// The mapping that has each outside port.
    ports: BTreeMap<u16, Inside>,
    random: Random,
}

/// What a mapping is for: an inside address, and with a symmetric box the one remote.
type Inside = (SocketAddr, Option<SocketAddr>);

#[derive(Debug)]
struct Mapping {
    port: u16,
    used: Duration,
    /// When each remote was last sent to.
    permitted: BTreeMap<SocketAddr, Duration>,
}

impl NatBox {
    pub(crate) fn new(nat: Nat, public: IpAddr, random: Random) -> Self {
        Self { nat, public, mappings: BTreeMap::new(), ports: BTreeMap::new(), random }
    }

    /// The source address that a packet from inside has outside; `None` when the table is full.
    pub(crate) fn outbound(&mut self, now: Duration, from: SocketAddr, to: SocketAddr) -> Option<SocketAddr> {
        self.forget_old(now);
        let inside = (from, (self.nat.kind == NatKind::Symmetric).then_some(to));
        if !self.mappings.contains_key(&inside) {
            if self.mappings.len() >= self.nat.max_mappings {
                return None;
            }
            let port = self.free_port();
            self.ports.insert(port, inside);
            self.mappings.insert(inside, Mapping { port, used: now, permitted: BTreeMap::new() });
        }
        let mapping = self.mappings.get_mut(&inside)?;
        mapping.used = now;
        mapping.permitted.insert(to, now);
        Some(SocketAddr::new(self.public, mapping.port))
    }

    /// The inside address to which a packet from outside goes; `None` when the box keeps it out.
    pub(crate) fn inbound(&mut self, now: Duration, from: SocketAddr, port: u16) -> Option<SocketAddr> {
        self.forget_old(now);
        let inside = self.ports.get(&port)?;
        let permitted = &self.mappings.get(inside)?.permitted;
        let passes = match self.nat.kind {
            NatKind::FullCone => true,
            NatKind::Restricted => permitted.keys().any(|remote| remote.ip() == from.ip()),
            NatKind::PortRestricted | NatKind::Symmetric => permitted.contains_key(&from),
        };
        passes.then_some(inside.0)
    }

    /// Who is behind a port, whether or not it lets anyone in.
    pub(crate) fn behind(&self, port: u16) -> Option<SocketAddr> {
        self.ports.get(&port).map(|inside| inside.0)
    }

    fn forget_old(&mut self, now: Duration) {
        let timeout = self.nat.timeout;
        let fresh = |used: &Duration| now.saturating_sub(*used) < timeout;
        self.mappings.retain(|_, mapping| {
            mapping.permitted.retain(|_, used| fresh(used));
            fresh(&mapping.used)
        });
        self.ports.retain(|_, inside| self.mappings.contains_key(inside));
    }

    fn free_port(&mut self) -> u16 {
        loop {
            let port = LOWEST_PORT + self.random.below(u64::from(u16::MAX - LOWEST_PORT)) as u16;
            if !self.ports.contains_key(&port) {
                return port;
            }
        }
    }
}

/// Mappings get ports from here on. There are far more of them than mappings are allowed.
const LOWEST_PORT: u16 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::ZERO;

    fn nat(kind: NatKind) -> NatBox {
        NatBox::new(Nat::new(kind), "45.0.0.1".parse().unwrap(), Random::from_number(1))
    }

    fn socket(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// Who gets in after the inside has sent to 7.7.7.7:7: that one, another port of it, somebody else.
    fn admitted(kind: NatKind) -> [bool; 3] {
        let mut nat = nat(kind);
        let outside = nat.outbound(START, socket("192.168.0.2:4400"), socket("7.7.7.7:7")).unwrap();
        ["7.7.7.7:7", "7.7.7.7:8", "8.8.8.8:8"]
            .map(|from| nat.inbound(START, socket(from), outside.port()).is_some())
    }

    #[test]
    fn each_kind_lets_in_whom_its_definition_names() {
        assert_eq!(admitted(NatKind::FullCone), [true, true, true]);
        assert_eq!(admitted(NatKind::Restricted), [true, true, false]);
        assert_eq!(admitted(NatKind::PortRestricted), [true, false, false]);
        assert_eq!(admitted(NatKind::Symmetric), [true, false, false]);
    }

    #[test]
    fn only_a_symmetric_box_shows_each_remote_another_port() {
        for kind in [NatKind::FullCone, NatKind::Restricted, NatKind::PortRestricted, NatKind::Symmetric] {
            let mut nat = nat(kind);
            let mut shown = |to| nat.outbound(START, socket("192.168.0.2:4400"), socket(to)).unwrap();
            let (first, second, again) = (shown("7.7.7.7:7"), shown("8.8.8.8:8"), shown("7.7.7.7:7"));
            assert_eq!(first, again);
            assert_eq!(first == second, kind != NatKind::Symmetric, "{kind:?}");
        }
    }

    #[test]
    fn a_mapping_is_gone_after_its_timeout_and_only_outbound_packets_refresh_it() {
        let (mut nat, inside, remote) =
            (nat(NatKind::FullCone), socket("192.168.0.2:4400"), socket("7.7.7.7:7"));
        let at = |seconds| Duration::from_secs(seconds);
        let port = nat.outbound(at(0), inside, remote).unwrap().port();
        assert_eq!(nat.outbound(at(50), inside, remote).unwrap().port(), port);
        assert_eq!(nat.inbound(at(100), remote, port), Some(inside));
        assert_eq!(nat.inbound(at(110), remote, port), None);
        assert_ne!(nat.outbound(at(111), inside, remote).unwrap().port(), port);
    }

    #[test]
    fn a_full_table_takes_no_more() {
        let limited = Nat { max_mappings: 2, ..Nat::new(NatKind::Symmetric) };
        let mut nat = NatBox::new(limited, "45.0.0.1".parse().unwrap(), Random::from_number(1));
        let mut send = |to| nat.outbound(START, socket("192.168.0.2:1"), socket(to));
        assert!(send("7.7.7.7:1").is_some() && send("7.7.7.7:2").is_some());
        assert!(send("7.7.7.7:3").is_none() && send("7.7.7.7:1").is_some());
    }
}
