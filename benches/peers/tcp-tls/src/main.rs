//! TLS over TCP as the benchmark measures it: what the kernel gives whoever needs no overlay.
//!
//! A connection is one stream. A work that needs several at a time makes as many connections; one that is about opening streams does not apply.

#[cfg(test)]
mod tests;
// The very TLS of raw quinn.
#[path = "../../../src/raw/tls.rs"]
mod tls;

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use peerage_bench_peer::{
    Arrived, Client, Dialler, Io, JOINED, Kind, Messages, Negotiated, Outcome, Peer, SHORT, Served, Service,
    Stream, unsupported,
};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

fn main() -> ExitCode {
    peerage_bench_peer::main::<TcpTls>()
}

type Tls = TlsStream<TcpStream>;

struct TcpTls;

impl Peer for TcpTls {
    const NAME: &'static str = "tcp-tls";

    type Dialler = Connector;

    fn new(_: &str) -> Outcome<Self> {
        Ok(Self)
    }

    async fn serve(&self) -> Outcome<Served> {
        let (_, config) = tls::configs(None, false)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?.to_string();
        let mut task = JoinSet::new();
        task.spawn(accept(listener, TlsAcceptor::from(Arc::new(config))));
        Ok(Served { address, keep: Box::new(task) })
    }

    async fn dialler(&self) -> Outcome<Connector> {
        let (config, _) = tls::configs(None, false)?;
        Ok(Connector { config: Arc::new(config) })
    }
}

/// Gives every connection a task of its own, until the listener fails.
async fn accept(listener: TcpListener, acceptor: TlsAcceptor) -> Outcome<()> {
    let (service, mut connections) = (Service::default(), JoinSet::<Outcome<()>>::new());
    loop {
        let (stream, _) = listener.accept().await?;
        let (service, acceptor) = (service.clone(), acceptor.clone());
        connections.spawn(async move {
            stream.set_nodelay(true)?;
            let stream = acceptor.accept(stream).await?;
            service.serve(Io::new(TlsStream::from(stream))).await
        });
        // A connection that breaks is its dialler's affair, which sees it too.
        while connections.try_join_next().is_some() {}
    }
}

#[derive(Clone)]
struct Connector {
    config: Arc<ClientConfig>,
}

impl Connector {
    async fn stream(&self, address: SocketAddr) -> Outcome<Tls> {
        let stream = TcpStream::connect(address).await?;
        // A small message leaves at once, whatever is unacknowledged.
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(tls::NAME)?;
        Ok(TlsConnector::from(self.config.clone()).connect(name, stream).await?.into())
    }
}

impl Dialler for Connector {
    type Client = Connected;

    async fn connect(&self, address: &str) -> Outcome<Connected> {
        let address = address.parse()?;
        let stream = self.stream(address).await?;
        let negotiated = negotiated(&stream);
        Ok(Connected { connector: self.clone(), address, first: Mutex::new(Some(stream)), negotiated })
    }
}

/// The names of IANA, which differ from those of rustls.
fn negotiated(stream: &Tls) -> Negotiated {
    let (_, session) = stream.get_ref();
    let suite = session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
    let group = session.negotiated_key_exchange_group().and_then(|group| group.name().as_str());
    Negotiated {
        suite: suite.map(|name| name.replacen("TLS13_", "TLS_", 1)),
        group: group.map(str::to_lowercase),
    }
}

/// A connection, and the way to further ones.
struct Connected {
    connector: Connector,
    address: SocketAddr,
    /// The stream of the connection, until it is used.
    first: Mutex<Option<Tls>>,
    negotiated: Negotiated,
}

impl Connected {
    /// The stream of the connection; of a further one when that is in use or over.
    async fn stream(&self) -> Outcome<Tls> {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        match first {
            Some(stream) => Ok(stream),
            None => self.connector.stream(self.address).await,
        }
    }
}

impl Client for Connected {
    type Stream = Io<Tls>;

    async fn open(&self) -> Outcome<Io<Tls>> {
        Ok(Io::new(self.stream().await?))
    }

    fn negotiated(&self) -> Negotiated {
        self.negotiated.clone()
    }

    /// Each message is written into a [`BufWriter`] of std's usual size, as one does it over TCP, where each write that reaches the socket
    /// is a record and a system call. It is flushed when there is nothing more to send, which is once, at the end.
    async fn messages(&self, messages: Messages) -> Outcome<()> {
        let message = Kind::Bulk.message(messages.bytes);
        let stream = self.stream().await?;
        let mut stream =
            if messages.joined { BufWriter::with_capacity(JOINED, stream) } else { BufWriter::new(stream) };
        for _ in 0..messages.count {
            stream.write_all(&message).await?;
        }
        stream.shutdown().await?;
        let (arrived, sent) = (stream.read_u64().await?, messages.count * messages.bytes as u64);
        if arrived == sent {
            Ok(())
        } else {
            Err(format!("{arrived} of {sent} bytes of messages arrived").into())
        }
    }

    async fn request(&self) -> Outcome<()> {
        unsupported("a connection has one stream: a request of its own would be a connection of its own")
    }

    async fn first_answer(&self) -> Outcome<()> {
        let mut stream = self.open().await?;
        stream.write(Kind::Request.message(SHORT)).await?;
        stream.finish().await?;
        let came = stream.drain().await?;
        if came == SHORT as u64 {
            Ok(())
        } else {
            Err(format!("{came} bytes came instead of {SHORT}").into())
        }
    }

    /// The work `streams` begins with this question.
    async fn arrived(&self, _: u64) -> Outcome<Arrived> {
        unsupported("a connection has one stream: a message would have a connection of its own")
    }
}
