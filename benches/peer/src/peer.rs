//! What a measured program has to say: how it serves, how it connects, and what its connections can do.

use std::any::Any;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::stream::{Kind, Stream, read_number};
use crate::{CHUNK, JOINED, Outcome, SHORT, stream, unsupported};

/// A library that is measured, in one of its forms.
pub trait Peer: Send + Sync + Sized + 'static {
    /// Its name in the table, such as `rust-libp2p`.
    const NAME: &'static str;
    /// The forms that it can be run in; the first is the one that runs when none is named.
    const FORMS: &'static [&'static str] = &["default"];
    /// Two nodes have one connection, so that each of many connections needs a node of its own on one side.
    const ONE_CONNECTION_PER_PAIR: bool = false;

    /// What connects.
    type Dialler: Dialler;

    /// Prepares one of [`Peer::FORMS`].
    fn new(form: &str) -> Outcome<Self>;

    /// Starts a server of its own on loopback that does its half of every work, until what this returns is dropped.
    fn serve(&self) -> impl Future<Output = Outcome<Served>> + Send;

    /// Makes what connects: an endpoint, a node, a swarm.
    fn dialler(&self) -> impl Future<Output = Outcome<Self::Dialler>> + Send;
}

/// A running server.
pub struct Served {
    /// How to reach it: what [`Dialler::connect`] takes. No white space.
    pub address: String,
    /// What must live as long as the server.
    pub keep: Box<dyn Any + Send>,
}

/// What connects.
pub trait Dialler: Send + Sync + 'static {
    /// A connection, once it is made.
    type Client: Client;

    /// Makes a new connection, with a full handshake, both sides authenticated.
    fn connect(&self, address: &str) -> impl Future<Output = Outcome<Self::Client>> + Send;

    /// Makes ready for so many connections, each of which is to be a full handshake and to be measured from [`Dialler::connect`] on. Nothing has to be
    /// done where nothing is resumed; a library that resumes and has no switch against it makes as many nodes, which is no part of a handshake.
    fn prepare(&self, connections: u64) -> impl Future<Output = Outcome<()>> + Send {
        let _ = connections;
        async { Ok(()) }
    }

    /// Sends `count` messages of `bytes` bytes to each of these connections, and returns when all have arrived.
    fn broadcast(
        &self,
        clients: &[Self::Client],
        count: u64,
        bytes: usize,
    ) -> impl Future<Output = Outcome<()>> + Send {
        let _ = (clients, count, bytes);
        async { unsupported("nothing sends one message to many connections") }
    }
}

/// What TLS agreed on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Negotiated {
    /// The cipher suite, by its IANA name.
    pub suite: Option<String>,
    /// The group of the key exchange, by its IANA name.
    pub group: Option<String>,
}

/// Messages that are to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Messages {
    /// How many.
    pub count: u64,
    /// How long each is.
    pub bytes: usize,
    /// The caller joins them into writes of [`JOINED`] bytes, as whoever has only a stream would do by hand.
    pub joined: bool,
}

/// How many messages that came on streams of their own have arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrived {
    /// So many, since the server's start.
    pub count: u64,
    /// How long ago the last one came.
    pub since: Duration,
}

/// An open channel on which messages of 32 bytes come back.
pub trait Echo: Send {
    /// Sends one and waits until it is back.
    fn ping(&mut self) -> BoxFuture<'_, Outcome<()>>;
}

/// A control channel beside a bulk channel of the same connection.
pub struct Priorities {
    /// The control channel.
    pub control: Box<dyn Echo>,
    /// Saturates the bulk channel until it is dropped.
    pub saturate: BoxFuture<'static, Outcome<()>>,
}

/// A connection. The methods that are there already do their work on streams that [`Client::open`] opens and a [`crate::Service`] serves; a
/// library overrides those for which it offers its users something nearer.
pub trait Client: Send + Sync + 'static {
    /// A stream in both directions.
    type Stream: Stream;

    /// Opens a stream.
    fn open(&self) -> impl Future<Output = Outcome<Self::Stream>> + Send;

    /// What TLS agreed on. The driver reads it off the wire where a library that speaks QUIC doesn't tell.
    fn negotiated(&self) -> Negotiated {
        Negotiated::default()
    }

    /// Sends so many bytes on one stream, and returns when the other side has counted them.
    fn bulk(&self, bytes: u64) -> impl Future<Output = Outcome<()>> + Send {
        async move {
            let chunk = Kind::Bulk.message(CHUNK);
            let mut stream = self.open().await?;
            let mut left = bytes;
            while left > 0 {
                let part = chunk.slice(..left.min(CHUNK as u64) as usize);
                left -= part.len() as u64;
                stream.write(part).await?;
            }
            stream.finish().await?;
            expect(read_number(&mut stream).await?, bytes, "bytes")
        }
    }

    /// Sends one-way messages on one channel, and returns when the application of the other side has received all.
    fn messages(&self, messages: Messages) -> impl Future<Output = Outcome<()>> + Send {
        async move {
            let message = Kind::Bulk.message(messages.bytes);
            let mut stream = self.open().await?;
            if messages.joined {
                write_joined(&mut stream, &message, messages.count).await?;
            } else {
                for _ in 0..messages.count {
                    stream.write(message.clone()).await?;
                }
            }
            stream.finish().await?;
            let bytes = messages.count * messages.bytes as u64;
            expect(read_number(&mut stream).await?, bytes, "bytes of messages")
        }
    }

    /// Opens a channel on which messages of 32 bytes come back.
    fn echo(&self) -> impl Future<Output = Outcome<Box<dyn Echo>>> + Send {
        async { Ok(Box::new(stream::StreamEcho(self.open().await?)) as Box<dyn Echo>) }
    }

    /// A new request of 32 bytes and its answer of 32 bytes.
    fn request(&self) -> impl Future<Output = Outcome<()>> + Send {
        async {
            let mut stream = self.open().await?;
            stream.write(Kind::Request.message(SHORT)).await?;
            stream.finish().await?;
            stream::expect_echo(&mut stream, SHORT).await
        }
    }

    /// What a new connection does first: by default a request. The handshake works take the time until it is answered.
    fn first_answer(&self) -> impl Future<Output = Outcome<()>> + Send {
        self.request()
    }

    /// Opens a stream, sends one message of 64 bytes, and leaves it. Nothing comes back.
    fn one_way(&self, message: Bytes) -> impl Future<Output = Outcome<()>> + Send {
        async {
            let mut stream = self.open().await?;
            stream.write(message).await?;
            stream.finish().await
        }
    }

    /// Waits until the server has received so many messages by [`Client::one_way`], or none for a while.
    fn arrived(&self, wanted: u64) -> impl Future<Output = Outcome<Arrived>> + Send {
        async move {
            let mut stream = self.open().await?;
            let mut question = vec![Kind::Arrived as u8];
            question.extend_from_slice(&wanted.to_be_bytes());
            stream.write(question.into()).await?;
            stream.finish().await?;
            let count = read_number(&mut stream).await?;
            let since = Duration::from_nanos(read_number(&mut stream).await?);
            Ok(Arrived { count, since })
        }
    }

    /// Makes it a connection as it is in use: introduced, and with one open channel that has carried a message each way. What is returned is kept.
    fn settle(&self) -> impl Future<Output = Outcome<Box<dyn Any + Send>>> + Send {
        async {
            let mut echo = self.echo().await?;
            echo.ping().await?;
            let kept: Box<dyn Any + Send> = Box::new(echo);
            Ok(kept)
        }
    }

    /// A control channel beside a bulk channel; of the same priority if `equal`.
    fn priorities(&self, equal: bool) -> impl Future<Output = Outcome<Priorities>> + Send {
        let _ = equal;
        async { unsupported("channels have no priorities") }
    }

    /// Ends the connection.
    fn close(self) -> impl Future<Output = ()> + Send
    where
        Self: Sized,
    {
        async {}
    }
}

/// Writes messages as whoever joins them by hand would: copied into a buffer of [`JOINED`] bytes that is written when it is full.
async fn write_joined(stream: &mut impl Stream, message: &[u8], count: u64) -> Outcome<()> {
    let mut buffer = Vec::with_capacity(JOINED);
    for _ in 0..count {
        if !buffer.is_empty() && buffer.len() + message.len() > JOINED {
            stream.write(std::mem::replace(&mut buffer, Vec::with_capacity(JOINED)).into()).await?;
        }
        buffer.extend_from_slice(message);
    }
    stream.write(buffer.into()).await
}

/// Compares what arrived with what was sent.
pub(crate) fn expect(arrived: u64, sent: u64, what: &str) -> Outcome<()> {
    if arrived == sent { Ok(()) } else { Err(format!("{arrived} of {sent} {what} arrived").into()) }
}
