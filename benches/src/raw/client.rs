//! The client's side.

use std::net::SocketAddr;

use bytes::Bytes;
use futures::future::{BoxFuture, try_join_all};
use peerage_bench_peer::{CHUNK, Client, Echo, Kind, Outcome, Priorities, SHORT, Stream};
use quinn::{Connection, Endpoint, RecvStream, SendStream};

use super::stream::RawStream;
use super::{Form, endpoint, tls};

/// An endpoint that dials.
pub(crate) struct Dialler {
    endpoint: Endpoint,
    form: Form,
}

impl Dialler {
    pub(super) fn new(form: Form) -> Outcome<Self> {
        Ok(Self { endpoint: endpoint(form, false, None)?, form })
    }
}

impl peerage_bench_peer::Dialler for Dialler {
    type Client = Connected;

    async fn connect(&self, address: &str) -> Outcome<Connected> {
        let address: SocketAddr =
            address.parse().map_err(|_| format!("{address:?} is no address with a port"))?;
        let connection = self.endpoint.connect(address, tls::NAME)?.await?;
        Ok(Connected { connection, form: self.form })
    }

    /// As whoever has only streams would do it: writes to one after the other.
    async fn broadcast(&self, clients: &[Connected], count: u64, bytes: usize) -> Outcome<()> {
        let message = Kind::Bulk.message(bytes);
        let mut streams = try_join_all(clients.iter().map(Client::open)).await?;
        for _ in 0..count {
            for stream in &mut streams {
                stream.write(message.clone()).await?;
            }
        }
        try_join_all(streams.into_iter().map(|stream| counted(stream, count * bytes as u64))).await?;
        Ok(())
    }
}

/// Ends a stream, and compares what the other side has counted.
async fn counted(mut stream: RawStream, bytes: u64) -> Outcome<()> {
    stream.finish().await?;
    let mut answer = Vec::new();
    while answer.len() < 8 {
        match stream.read(8).await? {
            [] => return Err("a stream ended before its answer".into()),
            part => answer.extend_from_slice(part),
        }
    }
    if answer == bytes.to_be_bytes() { Ok(()) } else { Err("not all messages of a broadcast arrived".into()) }
}

/// A connection.
pub(crate) struct Connected {
    connection: Connection,
    form: Form,
}

impl Client for Connected {
    type Stream = RawStream;

    async fn open(&self) -> Outcome<RawStream> {
        let (send, recv) = self.connection.open_bi().await?;
        Ok(RawStream::new(send, recv, self.form.tuned))
    }

    /// On a stream in one direction, which is the cheapest that quinn has.
    async fn one_way(&self, message: Bytes) -> Outcome<()> {
        let mut stream = self.connection.open_uni().await?;
        stream.write_all(&message).await?;
        Ok(stream.finish()?)
    }

    async fn priorities(&self, equal: bool) -> Outcome<Priorities> {
        let (send, recv) = self.connection.open_bi().await?;
        let (mut bulk, _) = self.connection.open_bi().await?;
        if !equal {
            send.set_priority(100)?;
            bulk.set_priority(-100)?;
        }
        let saturate = Box::pin(async move {
            let chunk = Kind::Bulk.message(CHUNK);
            loop {
                bulk.write_all(&chunk).await?;
            }
        });
        Ok(Priorities { control: Box::new(Control { send, recv }), saturate })
    }

    async fn close(self) {
        self.connection.close(0u8.into(), b"done");
    }
}

/// A stream on which messages of 32 bytes come back.
struct Control {
    send: SendStream,
    recv: RecvStream,
}

impl Echo for Control {
    fn ping(&mut self) -> BoxFuture<'_, Outcome<()>> {
        Box::pin(async {
            self.send.write_all(&Kind::Echo.message(SHORT)).await?;
            Ok(self.recv.read_exact(&mut [0; SHORT]).await?)
        })
    }
}
