//! `/interop/chan/1`: messages, each with its length in front as an unsigned varint, on a stream per direction. That is a channel of Peerage.

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::Arc,
};

use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::{PeerId, Stream, StreamProtocol};
use rand::RngCore;
use serde_json::{json, Value};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::streams::expect_end;

pub const CHANNEL: StreamProtocol = StreamProtocol::new("/interop/chan/1");

/// Message lengths, over and over: those at which the length in front grows, an empty one, and one of several packets.
const LENGTHS: [usize; 8] = [1, 127, 128, 0, 300, 16_383, 16_384, 70_000];
const MAX_MESSAGE: u64 = 1 << 20;

/// Messages in their order: how many, and what they were.
#[derive(Default)]
pub struct Tally {
    messages: u64,
    bytes: u64,
    digest: Sha256,
    /// Messages that lie behind those that were asked for.
    left: usize,
}

impl Tally {
    fn add(&mut self, message: &[u8]) {
        self.messages += 1;
        self.bytes += message.len() as u64;
        self.digest.update(length_prefix(message.len()));
        self.digest.update(message);
    }

    pub fn to_json(self) -> Value {
        let sum: String = self.digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        json!({"messages": self.messages, "bytes": self.bytes, "sha256": sum, "left": self.left})
    }
}

/// What came from each peer and was not taken yet. A clone is the same inbox.
#[derive(Clone, Default)]
pub struct Inbox(Arc<watch::Sender<HashMap<PeerId, VecDeque<Vec<u8>>>>>);

impl Inbox {
    /// Waits until a peer has sent so many messages, and takes them out.
    pub async fn take(&self, peer: PeerId, messages: u64) -> Tally {
        let wanted = messages as usize;
        let mut news = self.0.subscribe();
        let _ = news.wait_for(|all| all.get(&peer).map_or(0, VecDeque::len) >= wanted).await;
        let mut tally = Tally::default();
        self.0.send_modify(|all| {
            let queue = all.entry(peer).or_default();
            queue.drain(..wanted.min(queue.len())).for_each(|message| tally.add(&message));
            tally.left = queue.len();
        });
        tally
    }
}

/// Takes in what a peer sends until it ends its side. Nothing is sent back.
pub async fn serve(mut stream: Stream, peer: PeerId, inbox: &Inbox) -> io::Result<()> {
    while let Some(message) = read_message(&mut stream).await? {
        inbox.0.send_modify(|all| all.entry(peer).or_default().push_back(message));
    }
    stream.close().await
}

async fn read_message(stream: &mut Stream) -> io::Result<Option<Vec<u8>>> {
    let mut length = 0;
    for shift in (0..).step_by(7) {
        let mut byte = [0];
        match stream.read(&mut byte).await? {
            0 if shift == 0 => return Ok(None),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ => length |= u64::from(byte[0] & 0x7f) << shift,
        }
        if length > MAX_MESSAGE || shift > 21 {
            return Err(io::Error::other(format!("a message of {length} bytes or more was announced")));
        }
        if byte[0] < 0x80 {
            break;
        }
    }
    let mut message = vec![0; length as usize];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

/// Sends so many random messages and ends our side; the peer must end its own without a byte.
pub async fn send(mut stream: Stream, messages: u64) -> Result<Tally, String> {
    let mut tally = Tally::default();
    let sending = async {
        for length in LENGTHS.into_iter().cycle().take(messages as usize) {
            let mut message = vec![0; length];
            rand::thread_rng().fill_bytes(&mut message);
            tally.add(&message);
            stream.write_all(&[length_prefix(length), message].concat()).await?;
        }
        stream.close().await
    };
    sending.await.map_err(|error: io::Error| format!("while sending: {error}"))?;
    expect_end(&mut stream).await.map_err(|error| format!("after the last message: {error}"))?;
    Ok(tally)
}

/// A length as an unsigned varint.
fn length_prefix(mut length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while length >= 0x80 {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes
}
