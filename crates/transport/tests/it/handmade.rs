//! First packets made by hand: what no client of ours would say, under any connection ID.

use std::net::SocketAddr;

use rustls::Side;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::quic::{Keys, Version};

use crate::support::*;

/// The parts of an Initial packet of QUIC version 1 that matter here.
#[derive(Clone)]
pub(crate) struct Initial {
    pub(crate) to: Vec<u8>,
    pub(crate) from: Vec<u8>,
    /// Frames, in the clear.
    pub(crate) payload: Vec<u8>,
}

impl Initial {
    /// A packet with one CRYPTO frame at the beginning of the stream.
    pub(crate) fn with_crypto(content: &[u8]) -> Self {
        let mut payload = vec![0x06, 0x00];
        put_length(content.len(), &mut payload);
        payload.extend_from_slice(content);
        Self { to: vec![7; 8], from: vec![9; 8], payload }
    }

    /// Opens what a client sent as its first packet.
    pub(crate) fn open(datagram: &[u8]) -> Self {
        let to = connection_id(datagram, 5).to_vec();
        Self::decrypt(datagram, &to, Side::Server)
    }

    /// Opens the Initial at the front of what a server answered to a client that had called it `server`.
    pub(crate) fn open_answer(datagram: &[u8], server: &[u8]) -> Self {
        Self::decrypt(datagram, server, Side::Client)
    }

    fn decrypt(datagram: &[u8], secret: &[u8], side: Side) -> Self {
        let keys = keys(secret, side);
        let to = connection_id(datagram, 5);
        let from = connection_id(datagram, 6 + to.len());
        // The token of a client's packet is empty in these tests: one length byte.
        let length_at = 7 + to.len() + from.len() + 1;
        let length = usize::from(u16::from_be_bytes([datagram[length_at], datagram[length_at + 1]]) & 0x3fff);
        let number_at = length_at + 2;
        let mut packet = datagram[..number_at + length].to_vec();
        let (head, tail) = packet.split_at_mut(number_at + 4);
        let (first, number) = head.split_at_mut(number_at);
        keys.remote.header.decrypt_in_place(&tail[..16], &mut first[0], number).unwrap();
        let number_length = usize::from(packet[0] & 0x03) + 1;
        let number =
            packet[number_at..number_at + number_length].iter().fold(0, |n, b| n << 8 | u64::from(*b));
        let (header, body) = packet.split_at_mut(number_at + number_length);
        let payload = keys.remote.packet.decrypt_in_place(number, header, body).unwrap().to_vec();
        Self { to: to.to_vec(), from: from.to_vec(), payload }
    }

    /// The datagram, padded to the size that QUIC asks for.
    pub(crate) fn seal(&self) -> Vec<u8> {
        let keys = keys(&self.to, Side::Client);
        let mut body = self.payload.clone();
        body.resize(body.len().max(1170), 0);
        let mut packet = vec![0xc3, 0, 0, 0, 1];
        for id in [&self.to, &self.from] {
            packet.push(id.len() as u8);
            packet.extend_from_slice(id);
        }
        packet.push(0);
        put_length(4 + body.len() + keys.local.packet.tag_len(), &mut packet);
        let number_at = packet.len();
        packet.extend_from_slice(&[0; 4]);
        let tag = keys.local.packet.encrypt_in_place(0, &packet, &mut body).unwrap();
        packet.extend_from_slice(&body);
        packet.extend_from_slice(tag.as_ref());
        let (head, tail) = packet.split_at_mut(number_at + 4);
        let (first, number) = head.split_at_mut(number_at);
        keys.local.header.encrypt_in_place(&tail[..16], &mut first[0], number).unwrap();
        packet
    }
}

/// The code of a CONNECTION_CLOSE among the frames of a packet that else has only ACK and PADDING frames.
pub(crate) fn close_code(mut frames: &[u8]) -> Option<u64> {
    loop {
        match varint(&mut frames)? {
            0x00 | 0x01 => {}
            0x02 => {
                let (_largest, _delay, ranges, _first) =
                    (varint(&mut frames)?, varint(&mut frames)?, varint(&mut frames)?, varint(&mut frames)?);
                for _ in 0..2 * ranges {
                    varint(&mut frames)?;
                }
            }
            0x1c => return varint(&mut frames),
            _ => return None,
        }
    }
}

/// The first packet of a dial, caught before it arrives anywhere.
pub(crate) async fn caught_initial(foreign: &Foreign) -> Vec<u8> {
    let trap = tokio::net::UdpSocket::bind(LOOPBACK).await.unwrap();
    let _dial = foreign.start_dial(trap.local_addr().unwrap());
    receive(&trap).await.0
}

pub(crate) async fn receive(socket: &tokio::net::UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut packet = vec![0; 2000];
    let (length, from) = soon(socket.recv_from(&mut packet)).await.unwrap();
    packet.truncate(length);
    (packet, from)
}

fn keys(secret: &[u8], side: Side) -> Keys {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().unwrap();
    Keys::initial(Version::V1, suite, suite.quic.unwrap(), secret, side)
}

fn connection_id(datagram: &[u8], at: usize) -> &[u8] {
    &datagram[at + 1..at + 1 + usize::from(datagram[at])]
}

fn put_length(length: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&(0x4000 | length as u16).to_be_bytes());
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let length = 1 << (bytes.first()? >> 6);
    let (value, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    let first = u64::from(value[0] & 0x3f);
    Some(value[1..].iter().fold(first, |n, b| n << 8 | u64::from(*b)))
}
