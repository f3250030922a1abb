//! The body of an endpoint record: where a peer can be reached.

use bytes::Bytes;
use peerage_identity::{DialAddress, PeerId};
use peerage_wire::dht_record as wire;
use prost::Message;

use super::{MailboxPolicy, RecordFault};

/// The most addresses in an endpoint record.
pub const MAX_ENDPOINT_ADDRESSES: usize = 16;
/// The most protocols in an endpoint record.
pub const MAX_ENDPOINT_PROTOCOLS: usize = 16;
/// The most bytes of a protocol's name.
pub const MAX_PROTOCOL_NAME: usize = 64;

/// Where a peer can be reached, and who may leave it messages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EndpointBody {
    /// Where it can be dialled, the best first. What cannot be dialled from here is left out when read.
    pub addresses: Vec<DialAddress>,
    /// Who may write to its mailbox; `None` when it has none.
    pub mailbox: Option<MailboxPolicy>,
    /// Protocols with which it wants to be found.
    pub protocols: Vec<String>,
}

impl EndpointBody {
    /// As the body of a record. Addresses and protocols beyond the bounds are left out, the last first; the record's size is checked when it is published.
    pub fn encode(&self) -> Bytes {
        let addresses = self.addresses.iter().take(MAX_ENDPOINT_ADDRESSES);
        let body = wire::Endpoint {
            addresses: addresses.map(|address| address.clone().without_peer_id().to_bytes().into()).collect(),
            mailbox: self.mailbox.map(MailboxPolicy::to_wire),
            protocols: self.protocols.iter().take(MAX_ENDPOINT_PROTOCOLS).cloned().collect(),
        };
        body.encode_to_vec().into()
    }

    /// Reads the body of `peer`'s record.
    ///
    /// # Errors
    /// [`RecordFault::Body`] when it is none, or beyond its bounds.
    pub fn decode(peer: &PeerId, body: &Bytes) -> Result<Self, RecordFault> {
        let read = wire::Endpoint::decode(body.clone()).map_err(|_| RecordFault::Body)?;
        let named = |name: &String| name.len() <= MAX_PROTOCOL_NAME && !name.contains(char::is_control);
        let bounded = read.addresses.len() <= MAX_ENDPOINT_ADDRESSES
            && read.protocols.len() <= MAX_ENDPOINT_PROTOCOLS
            && read.protocols.iter().all(named);
        if !bounded {
            return Err(RecordFault::Body);
        }
        let usable = |bytes: &Bytes| {
            let address = DialAddress::from_bytes(bytes).ok()?;
            address.with_peer_id(*peer).ok()
        };
        Ok(Self {
            addresses: read.addresses.iter().filter_map(usable).collect(),
            mailbox: read.mailbox.map(MailboxPolicy::from_wire),
            protocols: read.protocols,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numbered::{address, peer};
    use proptest::prelude::*;

    // AL-37: where a peer can be reached; here with a bound on each part.
    #[test]
    fn an_endpoint_comes_back_with_its_addresses_in_order_and_within_bounds() {
        let body = EndpointBody {
            addresses: (1..=3).map(|number| address(number).with_peer_id(peer(1)).unwrap()).collect(),
            mailbox: Some(MailboxPolicy::Open { work_bits: 9 }),
            protocols: vec!["/acme/chat/1".into()],
        };
        assert_eq!(EndpointBody::decode(&peer(1), &body.encode()), Ok(body));
        let many = EndpointBody { addresses: (0..99).map(address).collect(), ..EndpointBody::default() };
        let read = EndpointBody::decode(&peer(1), &many.encode()).unwrap();
        assert_eq!(read.addresses.len(), MAX_ENDPOINT_ADDRESSES);
        let wire = wire::Endpoint { protocols: vec![String::new(); 99], ..Default::default() };
        assert_eq!(EndpointBody::decode(&peer(1), &wire.encode_to_vec().into()), Err(RecordFault::Body));
        let wire = wire::Endpoint { protocols: vec!["\u{1b}".into()], ..Default::default() };
        assert_eq!(EndpointBody::decode(&peer(1), &wire.encode_to_vec().into()), Err(RecordFault::Body));
    }

    #[test]
    fn addresses_of_other_peers_are_left_out() {
        let foreign = address(1).with_peer_id(peer(2)).unwrap().to_bytes();
        let wire = wire::Endpoint { addresses: vec![foreign.into()], ..Default::default() };
        let read = EndpointBody::decode(&peer(1), &wire.encode_to_vec().into()).unwrap();
        assert_eq!(read.addresses, []);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(noise: Vec<u8>) {
            let _ = EndpointBody::decode(&peer(1), &noise.into());
        }
    }
}
