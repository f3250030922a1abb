//! What TLS agreed on, read off the wire: a relay between client and server opens the server's first packet and reads the ServerHello.
//!
//! The keys of the first packets of QUIC follow from the connection ID that the client chose (RFC 9001 § 5.2), so that whoever sees them can
//! read them. Libraries that don't tell their cipher suite are asked in this way what they really took.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use peerage_bench_peer::{Negotiated, Outcome, Work};
use rustls::Side;
use rustls::quic::{Keys, Version};
use tokio::net::UdpSocket;

use super::once::{answer, serve};
use super::plan::Entry;
use super::programs::Programs;

/// Larger than any datagram.
const DATAGRAM: usize = 65_536;
/// QUIC version 1.
const VERSION_1: [u8; 4] = [0, 0, 0, 1];
/// First packets that are kept to find the keys; a client sends few.
const MAX_IDS: usize = 8;

/// Lets a client of this program connect once through the relay. Nothing where it is not QUIC, or the address has no port that could be exchanged.
pub(super) async fn negotiated(programs: &Programs, entry: Entry) -> Outcome<Negotiated> {
    let server = serve(programs, entry, 1).await?;
    let (before, port, after) = port(&server.address).ok_or("the address has no port")?;
    let outside = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = format!("{before}{}{after}", outside.local_addr()?.port());
    let mut command = programs.command(entry.peer);
    command.args(["drive", "-", &Work::Start.name(), "--form", entry.form]);
    let mut relay = Relay::default();
    tokio::select! {
        error = relay.run(&outside, SocketAddr::from((Ipv4Addr::LOCALHOST, port))) => error?,
        ended = answer(&mut command, &address) => { ended?; }
    }
    Ok(relay.hello.negotiated().ok_or("no ServerHello came by")?)
}

/// The UDP port of an address, with what is before and after it.
fn port(address: &str) -> Option<(&str, u16, &str)> {
    let start = match address.find("/udp/") {
        Some(at) => at + "/udp/".len(),
        None => address.rfind(':')? + 1,
    };
    let digits = address[start..].find(|c: char| !c.is_ascii_digit()).unwrap_or(address.len() - start);
    let port = address[start..start + digits].parse().ok()?;
    Some((&address[..start], port, &address[start + digits..]))
}

/// Passes datagrams on, and reads the first ones.
#[derive(Debug, Default)]
struct Relay {
    /// Connection IDs that the client sent its first packets to.
    ids: Vec<Vec<u8>>,
    hello: Hello,
}

impl Relay {
    async fn run(&mut self, outside: &UdpSocket, server: SocketAddr) -> Outcome<()> {
        let inside = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        inside.connect(server).await?;
        let (mut up, mut down) = (vec![0; DATAGRAM], vec![0; DATAGRAM]);
        let mut client = None;
        loop {
            tokio::select! {
                came = outside.recv_from(&mut up) => {
                    let (length, from) = came?;
                    client = Some(from);
                    self.note_client(&up[..length]);
                    inside.send(&up[..length]).await?;
                }
                came = inside.recv(&mut down) => {
                    let length = came?;
                    self.note_server(&down[..length]);
                    if let Some(client) = client {
                        outside.send_to(&down[..length], client).await?;
                    }
                }
            }
        }
    }

    fn note_client(&mut self, datagram: &[u8]) {
        if let Some(initial) = Initial::read(datagram)
            && self.ids.len() < MAX_IDS
            && !self.ids.iter().any(|id| id == initial.to)
        {
            self.ids.push(initial.to.to_vec());
        }
    }

    fn note_server(&mut self, datagram: &[u8]) {
        let Some(initial) = Initial::read(datagram) else { return };
        if let Some(payload) = self.ids.iter().find_map(|id| initial.open(id)) {
            self.hello.note(&payload);
        }
    }
}

/// Reads big-endian numbers off a slice.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, bytes: usize) -> Option<u64> {
        Some(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// RFC 9000 § 16.
    fn varint(&mut self) -> Option<u64> {
        let bytes = 1 << (self.0.first()? >> 6);
        let number = self.number(bytes)?;
        Some(number & (u64::MAX >> (64 - 8 * bytes + 2)))
    }
}

/// A first packet of either side, still sealed.
struct Initial<'a> {
    /// The connection ID that it goes to.
    to: &'a [u8],
    datagram: &'a [u8],
    /// Where its packet number begins, and where it ends.
    number_at: usize,
    end: usize,
}

impl<'a> Initial<'a> {
    fn read(datagram: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(datagram);
        let first = *reader.take(1)?.first()?;
        // The second bit may be anything between peers that agreed on that (RFC 9287).
        if first & 0xb0 != 0x80 || reader.take(4)? != VERSION_1 {
            return None;
        }
        let length = reader.number(1)? as usize;
        let to = reader.take(length)?;
        let from = reader.number(1)? as usize;
        reader.take(from)?;
        let token = reader.varint()? as usize;
        reader.take(token)?;
        let length = reader.varint()? as usize;
        let number_at = datagram.len() - reader.0.len();
        reader.take(length)?;
        Some(Self { to, datagram, number_at, end: number_at + length })
    }

    /// What the server sealed, if the client's first packet went to this ID.
    fn open(&self, id: &[u8]) -> Option<Vec<u8>> {
        let suite = rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13()?;
        let keys = Keys::initial(Version::V1, suite, suite.quic?, id, Side::Client).remote;
        let mut packet = self.datagram.get(..self.end)?.to_vec();
        let sample_at = self.number_at + 4;
        let sample = packet.get(sample_at..sample_at + keys.header.sample_len())?.to_vec();
        let (head, rest) = packet.split_at_mut_checked(self.number_at)?;
        keys.header.decrypt_in_place(&sample, head.first_mut()?, rest.get_mut(..4)?).ok()?;
        let payload_at = self.number_at + usize::from(head.first()? & 3) + 1;
        let (header, payload) = packet.split_at_mut_checked(payload_at)?;
        let number =
            header.get(self.number_at..)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        keys.packet.decrypt_in_place(number, header, payload).ok().map(<[u8]>::to_vec)
    }
}

/// Pieces of the server's handshake messages, by where they begin.
#[derive(Debug, Default)]
struct Hello(BTreeMap<u64, Vec<u8>>);

impl Hello {
    /// Takes the pieces out of the frames of a first packet.
    fn note(&mut self, frames: &[u8]) {
        let mut reader = Reader(frames);
        while let Some((at, piece)) = next_piece(&mut reader) {
            self.0.insert(at, piece.to_vec());
        }
    }

    /// RFC 8446 § 4.1.3. A retry names the group that will be taken, too.
    fn negotiated(&self) -> Option<Negotiated> {
        let mut bytes = Vec::new();
        for (at, piece) in &self.0 {
            bytes.truncate(*at as usize);
            if bytes.len() as u64 == *at {
                bytes.extend_from_slice(piece);
            }
        }
        let mut reader = Reader(&bytes);
        if reader.number(1)? != 2 {
            return None;
        }
        // Length, version, random.
        reader.take(3 + 2 + 32)?;
        let session = reader.number(1)? as usize;
        reader.take(session)?;
        let suite = Some(suite(reader.number(2)?));
        // Compression, and the length of the extensions.
        reader.take(1 + 2)?;
        let group = std::iter::from_fn(|| {
            let kind = reader.number(2)?;
            let length = reader.number(2)? as usize;
            let group = Reader(reader.0).number(2);
            let is_key_share = kind == 51;
            // The share itself may be in a piece that was not seen.
            reader.0 = reader.0.get(length..).unwrap_or_default();
            Some(group.filter(|_| is_key_share))
        });
        let group = group.flatten().next().map(group_name);
        Some(Negotiated { suite, group })
    }
}

/// The next piece of a handshake message in the frames that a first packet may have (RFC 9000 § 12.4).
fn next_piece<'a>(reader: &mut Reader<'a>) -> Option<(u64, &'a [u8])> {
    loop {
        match reader.varint()? {
            // Padding and pings.
            0 | 1 => {}
            kind @ (2 | 3) => {
                reader.varint()?;
                reader.varint()?;
                let ranges = reader.varint()?;
                reader.varint()?;
                let more = 2 * ranges + if kind == 3 { 3 } else { 0 };
                (0..more).try_for_each(|_| reader.varint().map(drop))?;
            }
            6 => {
                let at = reader.varint()?;
                let length = reader.varint()? as usize;
                return Some((at, reader.take(length)?));
            }
            _ => return None,
        }
    }
}

fn suite(code: u64) -> String {
    match code {
        0x1301 => "TLS_AES_128_GCM_SHA256".to_owned(),
        0x1302 => "TLS_AES_256_GCM_SHA384".to_owned(),
        0x1303 => "TLS_CHACHA20_POLY1305_SHA256".to_owned(),
        other => format!("{other:#06x}"),
    }
}

fn group_name(code: u64) -> String {
    match code {
        0x0017 => "secp256r1".to_owned(),
        0x0018 => "secp384r1".to_owned(),
        0x001d => "x25519".to_owned(),
        0x11ec => "X25519MLKEM768".to_owned(),
        other => format!("{other:#06x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_found_in_addresses_of_every_peer() {
        assert_eq!(port("127.0.0.1:4400"), Some(("127.0.0.1:", 4400, "")));
        let address = "/ip4/127.0.0.1/udp/4400/quic-v1/p2p/12D3KooW";
        assert_eq!(port(address), Some(("/ip4/127.0.0.1/udp/", 4400, "/quic-v1/p2p/12D3KooW")));
        assert_eq!(port("nowhere"), None);
        assert_eq!(port("/udp/99999/x"), None);
    }

    /// A ServerHello with a session ID, two extensions, and a key share of four bytes.
    fn hello() -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0, 3, 3];
        bytes.extend([9; 32]);
        bytes.extend([1, 77, 0x13, 0x03, 0, 0, 18]);
        bytes.extend([0, 43, 0, 2, 3, 4]);
        bytes.extend([0, 51, 0, 8, 0x11, 0xec, 0, 4, 1, 2, 3, 4]);
        bytes
    }

    fn crypto(at: u8, piece: &[u8]) -> Vec<u8> {
        [&[6, at, piece.len() as u8], piece].concat()
    }

    #[test]
    fn suite_and_group_are_read_from_pieces_in_any_order_between_other_frames() {
        let hello = hello();
        let mut seen = Hello::default();
        let acknowledgement = [2, 5, 0, 1, 0, 1, 1];
        seen.note(&[&acknowledgement[..], &[0, 0, 1], &crypto(40, &hello[40..])].concat());
        assert_eq!(seen.negotiated(), None);
        seen.note(&crypto(0, &hello[..45]));
        let expected = Negotiated {
            suite: Some("TLS_CHACHA20_POLY1305_SHA256".to_owned()),
            group: Some("X25519MLKEM768".to_owned()),
        };
        assert_eq!(seen.negotiated(), Some(expected));
    }

    #[test]
    fn what_is_cut_off_or_no_first_packet_is_passed_over() {
        let mut relay = Relay::default();
        for length in 0..60 {
            relay.note_client(&vec![0xc0; length]);
            relay.note_server(&vec![0x80; length]);
        }
        assert!(relay.ids.is_empty() && relay.hello.negotiated().is_none());
        for end in 0..hello().len() {
            let mut seen = Hello::default();
            seen.note(&crypto(0, &hello()[..end]));
            let _ = seen.negotiated();
        }
    }
}
