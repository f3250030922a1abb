//! Peerage through its public API, with every protection on: channels for messages, requests for questions, raw streams for bulk.

mod client;
mod server;
mod stream;

use peerage::{ChannelConfig, Class, Node, NodeBuilder, PeersConfig, Rate, TransportSettings};
use peerage_bench_peer::{Outcome, Peer, Served};

/// A request that comes back.
pub(crate) const ECHO: &str = "/bench/echo/1";
/// A question for how many messages have come; it is answered when there are as many.
const COUNTED: &str = "/bench/counted/1";
/// Makes the server ask who the client is.
const INTRODUCE: &str = "/bench/introduce/1";
/// Raw streams, which do what their first byte says.
const STREAMS: &str = "/bench/streams/1";
/// One-way messages.
const MESSAGES: &str = "/bench/messages/1";
/// Messages that come back.
const PINGS: &str = "/bench/pings/1";

/// Peerage in one of its forms.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ours {
    /// The largest UDP payload, where it is not the preset's.
    datagram: Option<u16>,
    /// Far more newcomers a second are let in than by default: where handshakes are measured, not the budget for them.
    newcomers: bool,
}

impl Peer for Ours {
    const NAME: &'static str = "ours";
    const FORMS: &'static [&'static str] = &["default", "1452", "newcomers"];
    const ONE_CONNECTION_PER_PAIR: bool = true;
    type Dialler = client::Dialler;

    fn new(form: &str) -> Outcome<Self> {
        Ok(Self { datagram: (form == "1452").then_some(1452), newcomers: form == "newcomers" })
    }

    async fn serve(&self) -> Outcome<Served> {
        server::serve(self.builder().listen("/ip4/127.0.0.1/udp/0/quic-v1").start().await?)
    }

    async fn dialler(&self) -> Outcome<client::Dialler> {
        client::Dialler::new(self.builder().start().await?)
    }
}

impl Ours {
    /// The default preset, with places for as many peers as are measured.
    fn builder(self) -> NodeBuilder {
        let mut transport = TransportSettings::default();
        if self.newcomers {
            let plenty = Rate::new(1_000_000, 1_000_000);
            (transport.admission.unvalidated, transport.admission.validated) = (plenty, plenty);
        }
        if let Some(datagram) = self.datagram {
            transport.max_datagram_bytes = datagram;
        }
        let peers = PeersConfig {
            max_inbound: 20_000,
            max_outbound: 0,
            max_known_peers: 20_000,
            ..PeersConfig::default()
        };
        Node::builder().network("bench").peers_config(peers).transport_settings(transport)
    }
}

/// The channels of the work `prio`: one for urgent messages, one for bulk; as they are meant to be used, or both of the same class.
fn prio_channels(equal: bool) -> [ChannelConfig; 2] {
    let (urgent, bulk) = if equal {
        ("/bench/equal-urgent/1", "/bench/equal-bulk/1")
    } else {
        ("/bench/urgent/1", "/bench/bulk/1")
    };
    let channels = [ChannelConfig::control(urgent), ChannelConfig::bulk(bulk)];
    if equal { channels.map(|channel| channel.class(Class::Normal)) } else { channels }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_channels_differ_in_nothing_that_gives_way() {
        let [urgent, bulk] = prio_channels(true);
        assert_eq!((urgent.class, urgent.priority), (bulk.class, bulk.priority));
        let [urgent, bulk] = prio_channels(false);
        assert!(urgent.priority > bulk.priority);
    }
}
