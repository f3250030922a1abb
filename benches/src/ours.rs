//! Peerage through its public API: a raw stream for bulk, a channel for messages.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use peerage::{Channel, ChannelConfig, Node, PeerId, Raw};
use tokio::sync::watch;

use crate::Outcome;
use crate::child;
use crate::raw::SMALL;

/// A request that is answered by itself.
pub(crate) const ECHO: &str = "/bench/echo/1";
const BULK: &str = "/bench/bulk/1";
const MESSAGES: &str = "/bench/messages/1";
const COUNTED: &str = "/bench/counted/1";
/// Bytes of one bulk write.
const CHUNK: usize = 64 * 1024;

/// Serves: drains every stream, and counts the channel's messages.
pub(crate) async fn serve() -> Outcome<()> {
    let node = Node::builder()
        .network("bench")
        .listen("/ip4/127.0.0.1/udp/0/quic-v1")
        .max_inbound(2000)
        .start()
        .await?;
    let incoming = node.accept(BULK)?;
    let messages = node.channel::<Raw>(ChannelConfig::new(MESSAGES))?;
    let counted = Arc::new(watch::Sender::new(0u64));

    let count = counted.clone();
    node.serve(COUNTED, move |_, wanted: Raw| {
        let mut count = count.subscribe();
        async move {
            let wanted = wanted.0.as_ref().try_into().map_or(0, u64::from_be_bytes);
            let reached = count.wait_for(|count| *count >= wanted).await.map(|count| *count);
            Ok(Raw(Bytes::copy_from_slice(&reached.unwrap_or_default().to_be_bytes())))
        }
    })?;
    node.serve(ECHO, |_, question: Raw| async move { Ok(question) })?;
    tokio::spawn(async move {
        let mut total = 0u64;
        while messages.recv().await.is_some() {
            total += 1;
            if total.is_multiple_of(1000) {
                counted.send_replace(total);
            }
        }
    });
    tokio::spawn(async move {
        while let Some((_, mut stream)) = incoming.recv().await {
            tokio::spawn(async move {
                let mut total = 0u64;
                while let Ok(Some(chunk)) = stream.recv.read_chunk(usize::MAX).await {
                    total += chunk.len() as u64;
                }
                let _ = stream.send.write_all(&total.to_be_bytes()).await;
                let _ = stream.send.finish();
            });
        }
    });
    let address = node.listen_addresses().into_iter().next().ok_or("the node does not listen")?;
    child::until_unwanted(&address.to_string()).await?;
    node.close().await;
    Ok(())
}

/// A connected client.
pub(crate) struct Client {
    node: Node,
    peer: PeerId,
    messages: Channel<Raw>,
    sent: u64,
}

impl Client {
    pub(crate) async fn connect(address: &str) -> Outcome<Self> {
        let node = Node::builder().network("bench").start().await?;
        let messages = node.channel::<Raw>(ChannelConfig::new(MESSAGES))?;
        let peer = node.connect(address).await?;
        Ok(Self { node, peer, messages, sent: 0 })
    }

    /// Sends `bytes` on one stream; the time until the other side has counted them.
    pub(crate) async fn bulk(&self, bytes: u64) -> Outcome<Duration> {
        let chunk = Bytes::from(vec![7; CHUNK]);
        let start = Instant::now();
        let mut stream = self.node.open(self.peer, BULK).await?;
        let mut left = bytes;
        while left > 0 {
            let part = chunk.slice(..left.min(CHUNK as u64) as usize);
            left -= part.len() as u64;
            stream.send.write_chunk(part).await?;
        }
        stream.send.finish()?;
        let mut counted = Vec::with_capacity(8);
        while let Some(chunk) = stream.recv.read_chunk(8).await? {
            counted.extend_from_slice(&chunk);
        }
        match counted.as_slice().try_into().map(u64::from_be_bytes) {
            Ok(counted) if counted == bytes => Ok(start.elapsed()),
            _ => Err("not all bytes arrived".into()),
        }
    }

    /// Sends `count` messages of 64 bytes (a multiple of 1,000) on the channel; the time until the application of the other side has
    /// received the last.
    pub(crate) async fn messages(&mut self, count: u64) -> Outcome<Duration> {
        let message = Raw(Bytes::from_static(&[7; SMALL]));
        let start = Instant::now();
        let sender = self.messages.to(self.peer)?;
        for _ in 0..count {
            sender.send(&message).await?;
        }
        self.sent += count;
        let wanted = Raw(Bytes::copy_from_slice(&self.sent.to_be_bytes()));
        let reached: Raw = self.node.request(self.peer, COUNTED, &wanted).await?;
        if reached.0.as_ref() == self.sent.to_be_bytes() {
            Ok(start.elapsed())
        } else {
            Err("not all messages arrived".into())
        }
    }

    /// One request of 64 bytes and its answer.
    pub(crate) async fn request(&self) -> Outcome<()> {
        let question = Raw(Bytes::from_static(&[7; SMALL]));
        let answer: Raw = self.node.request(self.peer, ECHO, &question).await?;
        if answer == question { Ok(()) } else { Err("another answer than the question".into()) }
    }

    pub(crate) async fn close(self) {
        self.node.close().await;
    }
}
