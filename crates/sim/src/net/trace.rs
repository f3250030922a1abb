//! What happened on the network: counters, dials, taps, and one hash over everything.

use std::collections::BTreeSet;
use std::fmt;
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::HostId;

/// One packet on its way, as a tap sees it.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    /// When it was sent, since the network began.
    pub at: Duration,
    /// Who sent it.
    pub from_host: HostId,
    /// The socket that it left from, as its host knows it.
    pub from: SocketAddr,
    /// Where it was sent.
    pub to: SocketAddr,
    /// The host that would get it, where that is known when it leaves.
    pub to_host: Option<HostId>,
    /// The UDP payload. QUIC has encrypted it.
    pub payload: &'a [u8],
    /// What becomes of it.
    pub fate: Fate,
}

/// What becomes of a packet, as far as that is certain when it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It is on its way. A NAT box, a partition that begins meanwhile or a host that is down may still stop it.
    Sent,
    /// As `Sent`, and a copy follows.
    Duplicated,
    /// As `Sent`, but held back.
    Reordered,
    /// The path lost it.
    Lost,
    /// A queue was full.
    Overflow,
    /// It was larger than the path's MTU.
    TooLarge,
    /// A partition or a one-way block stopped it.
    Cut,
    /// There is no such address.
    Unreachable,
    /// The sender's NAT box had no room for another mapping.
    NatFull,
}

/// Counts packets by what became of them, since the network began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Packets that hosts sent.
    pub sent: u64,
    /// Their UDP payload in bytes.
    pub sent_bytes: u64,
    /// Packets that a socket got; copies count.
    pub delivered: u64,
    /// Lost by a path's loss.
    pub lost: u64,
    /// Dropped because a path's queue, or a socket's, was full.
    pub overflowed: u64,
    /// Larger than a path's MTU.
    pub too_large: u64,
    /// Stopped by a partition or a block.
    pub cut: u64,
    /// Sent to where nobody is, or was no more when they came.
    pub unreachable: u64,
    /// Kept out, or not let out, by a NAT box.
    pub refused_by_nat: u64,
    /// Delivered twice.
    pub duplicated: u64,
    /// Held back, so that later packets overtook them.
    pub reordered: u64,
}

impl Counters {
    /// All packets that came to nothing.
    pub fn dropped(&self) -> u64 {
        self.lost + self.overflowed + self.too_large + self.cut + self.unreachable + self.refused_by_nat
    }

    /// What was counted since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Counters) -> Counters {
        Counters {
            sent: self.sent - earlier.sent,
            sent_bytes: self.sent_bytes - earlier.sent_bytes,
            delivered: self.delivered - earlier.delivered,
            lost: self.lost - earlier.lost,
            overflowed: self.overflowed - earlier.overflowed,
            too_large: self.too_large - earlier.too_large,
            cut: self.cut - earlier.cut,
            unreachable: self.unreachable - earlier.unreachable,
            refused_by_nat: self.refused_by_nat - earlier.refused_by_nat,
            duplicated: self.duplicated - earlier.duplicated,
            reordered: self.reordered - earlier.reordered,
        }
    }
}

/// A first packet of a connection: somebody dials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DialSeen {
    /// When, since the network began.
    pub at: Duration,
    /// Who dials.
    pub from: HostId,
    /// Where to.
    pub to: SocketAddr,
}

/// The most that `dials` holds within any window of that length.
pub fn peak_dials(dials: &[DialSeen], window: Duration) -> usize {
    let within = |first: usize| {
        let end = dials[first].at + window;
        dials[first..].iter().take_while(|dial| dial.at < end).count()
    };
    (0..dials.len()).map(within).max().unwrap_or(0)
}

type Script = Box<dyn Write + Send>;
type Tap = Box<dyn FnMut(&Packet<'_>) + Send>;

/// Everything that is recorded.
pub(crate) struct Trace {
    hash: Sha256,
    pub(crate) counters: Counters,
    pub(crate) dials: Vec<DialSeen>,
    /// The connections whose first packet was seen.
    begun: BTreeSet<(HostId, Vec<u8>)>,
    taps: Vec<Tap>,
    script: Option<Script>,
}

impl Trace {
    pub(crate) fn new(seed: u64) -> Self {
        let hash = Sha256::new_with_prefix(seed.to_le_bytes());
        Self {
            hash,
            counters: Counters::default(),
            dials: Vec::new(),
            begun: BTreeSet::new(),
            taps: Vec::new(),
            script: None,
        }
    }

    pub(crate) fn tap(&mut self, tap: Tap) {
        self.taps.push(tap);
    }

    /// Also writes everything down from now on, a line each.
    pub(crate) fn write_to(&mut self, script: Script) {
        self.script = Some(script);
    }

    /// Takes a packet down.
    pub(crate) fn packet(&mut self, packet: &Packet<'_>) {
        let line = (packet.at.as_nanos() as u64, packet.payload.len() as u32, packet.fate as u8);
        self.hash.update(line.0.to_le_bytes());
        self.hash.update(line.1.to_le_bytes());
        self.hash.update([b'p', line.2]);
        for socket in [packet.from, packet.to] {
            match socket.ip() {
                std::net::IpAddr::V4(ip) => self.hash.update(ip.octets()),
                std::net::IpAddr::V6(ip) => self.hash.update(ip.octets()),
            }
            self.hash.update(socket.port().to_le_bytes());
        }
        self.count(packet);
        let Packet { at, from, to, payload, fate, .. } = *packet;
        self.write(format_args!("{:?} {from} > {to} {} bytes {fate:?}", at, payload.len()));
        if let Some(id) = first_destination(packet.payload)
            && self.begun.insert((packet.from_host, id.to_vec()))
        {
            self.dials.push(DialSeen { at: packet.at, from: packet.from_host, to: packet.to });
        }
        for tap in &mut self.taps {
            tap(packet);
        }
    }

    /// Takes down something that a node told.
    pub(crate) fn event(&mut self, at: Duration, host: HostId, what: &str) {
        self.hash.update((at.as_nanos() as u64).to_le_bytes());
        self.hash.update((host.0 as u32).to_le_bytes());
        self.hash.update((what.len() as u32).to_le_bytes());
        self.hash.update(what.as_bytes());
        self.write(format_args!("{at:?} host {} {what}", host.0));
    }

    /// The hash over everything so far, in hexadecimal.
    pub(crate) fn hash(&self) -> String {
        self.hash.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn write(&mut self, line: fmt::Arguments<'_>) {
        if let Some(script) = &mut self.script
            && writeln!(script, "{line}").is_err()
        {
            // A full disk, say. The run is the same without.
            eprintln!("the trace cannot be written: it ends here");
            self.script = None;
        }
    }

    fn count(&mut self, packet: &Packet<'_>) {
        let counters = &mut self.counters;
        counters.sent += 1;
        counters.sent_bytes += packet.payload.len() as u64;
        match packet.fate {
            Fate::Sent => {}
            Fate::Duplicated => counters.duplicated += 1,
            Fate::Reordered => counters.reordered += 1,
            Fate::Lost => counters.lost += 1,
            Fate::Overflow => counters.overflowed += 1,
            Fate::TooLarge => counters.too_large += 1,
            Fate::Cut => counters.cut += 1,
            Fate::Unreachable => counters.unreachable += 1,
            Fate::NatFull => counters.refused_by_nat += 1,
        }
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace").field("counters", &self.counters).finish_non_exhaustive()
    }
}

/// The destination connection ID of a packet with which a dialler of ours begins a connection: an Initial packet of QUIC version 1 without a token (RFC
/// 9000 § 17.2.2), whose ID is as long as only a dialler's own choice is.
fn first_destination(payload: &[u8]) -> Option<&[u8]> {
    let [first, 0, 0, 0, 1, length, rest @ ..] = payload else { return None };
    if first & 0b1011_0000 != 0b1000_0000 || usize::from(*length) != LONGEST_CONNECTION_ID {
        return None;
    }
    let (id, rest) = rest.split_at_checked(LONGEST_CONNECTION_ID)?;
    let (source_length, rest) = rest.split_first()?;
    let token_length = rest.get(usize::from(*source_length))?;
    (*token_length == 0).then_some(id)
}

const LONGEST_CONNECTION_ID: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_of_dials_is_that_of_the_busiest_window() {
        let dial = |ms| DialSeen {
            at: Duration::from_millis(ms),
            from: HostId(0),
            to: "1.1.1.1:1".parse().unwrap(),
        };
        let dials: Vec<_> = [0, 900, 1000, 1100, 1850, 5000].map(dial).into();
        assert_eq!(peak_dials(&dials, Duration::from_secs(1)), 4);
        assert_eq!(peak_dials(&[], Duration::from_secs(1)), 0);
    }

    #[test]
    fn only_the_first_packets_of_diallers_are_dials() {
        let initial = |first: u8, id_length: u8, token: u8| {
            let mut packet = vec![first, 0, 0, 0, 1, id_length];
            packet.extend(vec![7; usize::from(id_length)]);
            packet.extend([2, 8, 8, token, 0]);
            packet
        };
        assert!(first_destination(&initial(0xc0, 20, 0)).is_some());
        assert!(first_destination(&initial(0x83, 20, 0)).is_some(), "the fixed bit may be greased");
        assert!(first_destination(&initial(0xe0, 20, 0)).is_none(), "a handshake packet");
        assert!(first_destination(&initial(0xc0, 8, 0)).is_none(), "an ID that the listener chose");
        assert!(first_destination(&initial(0xc0, 20, 9)).is_none(), "after a retry");
        assert!(first_destination(&[]).is_none());
        assert!(first_destination(&initial(0xc0, 20, 0)[..12]).is_none());
    }
}
