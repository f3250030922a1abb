//! iroh as the benchmark measures it: an endpoint on a loopback socket, streams of its connections, and nothing that looks for a way through the
//! internet.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use iroh::endpoint::{
    Connection, NetReportConfig, PortmapperConfig, QuicTransportConfig, RecvStream, SendStream, VarInt,
    presets,
};
use iroh::{Endpoint, EndpointAddr, RelayMode};
use peerage_bench_peer::{Client, Dialler, Io, Outcome, Peer, SMALL, Served, Service};
use tokio::io::Join;
use tokio::task::JoinSet;

/// The name of our protocol in TLS.
const ALPN: &[u8] = b"bench";
/// Longer than anything that is measured. Each path has a shorter one (15 s) and keep-alives every 5 s, which stay as they are.
const IDLE: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    peerage_bench_peer::main::<Iroh>()
}

struct Iroh;

impl Peer for Iroh {
    const NAME: &'static str = "iroh";
    /// Two endpoints may have several connections, but these share what an endpoint keeps of its peer; an overlay has one to each.
    const ONE_CONNECTION_PER_PAIR: bool = true;

    type Dialler = Dials;

    fn new(_: &str) -> Outcome<Self> {
        Ok(Self)
    }

    async fn serve(&self) -> Outcome<Served> {
        let endpoint = endpoint().await?;
        let socket = *endpoint.bound_sockets().first().ok_or("the endpoint has no socket")?;
        let address = format!("{}@{socket}", endpoint.id());
        let mut task = JoinSet::new();
        task.spawn(accept(endpoint));
        Ok(Served { address, keep: Box::new(task) })
    }

    async fn dialler(&self) -> Outcome<Dials> {
        Ok(Dials(endpoint().await?))
    }
}

/// An endpoint that sends nothing but to 127.0.0.1.
async fn endpoint() -> Outcome<Endpoint> {
    let transport = QuicTransportConfig::builder().max_idle_timeout(Some(IDLE.try_into()?)).build();
    let endpoint = Endpoint::builder(presets::Minimal)
        .relay_mode(RelayMode::Disabled)
        .clear_relay_transports()
        .clear_address_lookup()
        // The sockets on all interfaces, of both IP versions.
        .clear_ip_transports()
        .bind_addr(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?
        .portmapper_config(PortmapperConfig::Disabled)
        .net_report_config(NetReportConfig::minimal())
        // No resumption: each handshake is a full one.
        .max_tls_tickets(0)
        .transport_config(transport)
        .alpns(vec![ALPN.to_vec()]);
    Ok(endpoint.bind().await?)
}

/// Gives every connection and every stream a task of its own, until the endpoint ends.
async fn accept(endpoint: Endpoint) {
    let service = Service::default();
    let mut connections = JoinSet::new();
    while let Some(incoming) = endpoint.accept().await {
        let service = service.clone();
        connections.spawn(async move {
            // What fails from here on is its opener's affair, which sees it too.
            if let Ok(connection) = incoming.await {
                tokio::join!(both_ways(&connection, &service), one_way(&connection, &service));
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn both_ways(connection: &Connection, service: &Service) {
    while let Ok((send, receive)) = connection.accept_bi().await {
        let service = service.clone();
        tokio::spawn(async move { service.serve(Io::new(tokio::io::join(receive, send))).await });
    }
}

async fn one_way(connection: &Connection, service: &Service) {
    while let Ok(mut receive) = connection.accept_uni().await {
        let service = service.clone();
        tokio::spawn(async move {
            if receive.read_exact(&mut [0; SMALL]).await.is_ok() {
                service.arrivals.note();
            }
        });
    }
}

struct Dials(Endpoint);

impl Dialler for Dials {
    type Client = Connected;

    async fn connect(&self, address: &str) -> Outcome<Connected> {
        let (id, socket) = address.split_once('@').ok_or("an address is ID@IP:PORT")?;
        let address = EndpointAddr::new(id.parse()?).with_ip_addr(socket.parse()?);
        Ok(Connected(self.0.connect(address, ALPN).await?))
    }
}

struct Connected(Connection);

impl Client for Connected {
    type Stream = Io<Join<RecvStream, SendStream>>;

    async fn open(&self) -> Outcome<Self::Stream> {
        let (send, receive) = self.0.open_bi().await?;
        Ok(Io::new(tokio::io::join(receive, send)))
    }

    /// On a stream in one direction, which is the cheapest that there is.
    async fn one_way(&self, message: Bytes) -> Outcome<()> {
        let mut stream = self.0.open_uni().await?;
        stream.write_all(&message).await?;
        Ok(stream.finish()?)
    }

    async fn close(self) {
        self.0.close(VarInt::from_u32(0), b"");
    }
}
