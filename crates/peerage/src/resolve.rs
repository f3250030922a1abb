//! From a dialable address to socket addresses: names are looked up when they are dialled.
//!
//! Names of hosts go to the system's resolver, so that its hosts file and settings hold. `/dnsaddr/NAME` needs TXT records, which the system's
//! interface does not give: that look-up is hickory's, behind the feature `dnsaddr`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use futures_util::future::BoxFuture;
use peerage_identity::{DialAddress, DnsFamily, Host, PeerId};

use crate::race;

/// How long one look-up may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);
/// Socket addresses that one dial tries.
pub(crate) const MAX_ADDRESSES: usize = 16;
/// Of a name for which only third parties vouch, socket addresses that one dial tries.
pub(crate) const MAX_HEARSAY_ADDRESSES: usize = 2;
/// TXT records that are read of one name.
pub(crate) const MAX_RECORDS: usize = 64;
/// How deep `dnsaddr` may point to other `dnsaddr`.
pub(crate) const MAX_DEPTH: usize = 3;

/// Looks names up. A simulation or a test gives its own.
pub trait Resolve: fmt::Debug + Send + Sync {
    /// The IP addresses of a host.
    fn addresses(&self, name: String) -> BoxFuture<'_, Result<Vec<IpAddr>, String>>;

    /// The TXT records of a name.
    fn texts(&self, name: String) -> BoxFuture<'_, Result<Vec<String>, String>>;
}

/// One place to dial: where, and who must be there if an address says so.
pub(crate) type Place = (SocketAddr, Option<PeerId>);

/// Every place that an address stands for, in the order of RFC 8305; an error in one sentence when there is none.
pub(crate) async fn places(
    resolver: &dyn Resolve,
    address: &DialAddress,
    expected: Option<PeerId>,
) -> Result<Vec<Place>, String> {
    let mut found: Vec<Place> = Vec::new();
    match tokio::time::timeout(DEADLINE, collect(resolver, address, expected, 0, &mut found)).await {
        Ok(outcome) => outcome?,
        Err(_) if found.is_empty() => return Err(format!("{address} was not resolved within {DEADLINE:?}")),
        Err(_) => {}
    }
    let ordered = race::order(found.iter().map(|(socket, _)| *socket));
    let of = |socket: SocketAddr| found.iter().find(|place| place.0 == socket).copied();
    let places: Vec<_> = ordered.into_iter().filter_map(of).take(MAX_ADDRESSES).collect();
    if places.is_empty() {
        return Err(format!("{address} leads to no address that can be dialled"));
    }
    Ok(places)
}

fn collect<'a>(
    resolver: &'a dyn Resolve,
    address: &'a DialAddress,
    expected: Option<PeerId>,
    depth: usize,
    found: &'a mut Vec<Place>,
) -> BoxFuture<'a, Result<(), String>> {
    Box::pin(async move {
        if let Some(socket) = address.socket_addr() {
            found.push((socket, expected));
            return Ok(());
        }
        match (address.host(), address.port()) {
            (Host::Dns { name, family }, Some(port)) => {
                let ips = resolver.addresses(name.clone()).await;
                let ips = ips.map_err(|error| format!("the name {name} cannot be resolved: {error}"))?;
                let right = |ip: &IpAddr| match family {
                    DnsFamily::Any => true,
                    DnsFamily::V4 => ip.is_ipv4(),
                    DnsFamily::V6 => ip.is_ipv6(),
                };
                found.extend(ips.into_iter().filter(right).map(|ip| (SocketAddr::new(ip, port), expected)));
                Ok(())
            }
            (Host::Dnsaddr { name }, _) => dnsaddr(resolver, name, expected, depth, found).await,
            _ => Err(format!("{address} has no port")),
        }
    })
}

/// Follows the TXT records at `_dnsaddr.NAME`. Entries for other peers, and those that are no QUIC addresses, are passed over.
async fn dnsaddr(
    resolver: &dyn Resolve,
    name: &str,
    expected: Option<PeerId>,
    depth: usize,
    found: &mut Vec<Place>,
) -> Result<(), String> {
    if depth >= MAX_DEPTH {
        return Err(format!("dnsaddr {name} is nested too deeply: at most {MAX_DEPTH} levels are followed"));
    }
    let texts = resolver.texts(format!("_dnsaddr.{name}")).await;
    let texts =
        texts.map_err(|error| format!("the TXT records of _dnsaddr.{name} cannot be read: {error}"))?;
    for text in texts.iter().take(MAX_RECORDS) {
        let Some(entry) = text.strip_prefix("dnsaddr=") else { continue };
        let Ok(address) = DialAddress::from_str(entry) else { continue };
        let named = address.peer_id();
        if expected.is_some() && named.is_some() && named != expected {
            continue;
        }
        // One bad entry does not spoil the others.
        if let Err(error) = collect(resolver, &address, expected.or(named), depth + 1, found).await {
            tracing::debug!(name, entry, error, "a dnsaddr entry leads nowhere");
        }
        if found.len() >= MAX_ADDRESSES {
            break;
        }
    }
    Ok(())
}

/// The system's resolver, and hickory for TXT records.
#[derive(Debug, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn addresses(&self, name: String) -> BoxFuture<'_, Result<Vec<IpAddr>, String>> {
        Box::pin(async move {
            let found =
                tokio::net::lookup_host((name.as_str(), 0)).await.map_err(|error| error.to_string())?;
            Ok(found.map(|socket| socket.ip()).collect())
        })
    }

    #[cfg(feature = "dnsaddr")]
    fn texts(&self, name: String) -> BoxFuture<'_, Result<Vec<String>, String>> {
        use hickory_resolver::proto::rr::RData;

        Box::pin(async move {
            let resolver = hickory_resolver::TokioResolver::builder_tokio()
                .and_then(|builder| builder.build())
                .map_err(|error| error.to_string())?;
            // A name that is absolute is not tried under the machine's search domains.
            let found = resolver.txt_lookup(format!("{name}.")).await.map_err(|error| error.to_string())?;
            let text = |data: &RData| match data {
                RData::TXT(txt) => {
                    let joined: Vec<u8> = txt.txt_data.iter().flat_map(|part| part.iter().copied()).collect();
                    String::from_utf8(joined).ok()
                }
                _ => None,
            };
            Ok(found.answers().iter().filter_map(|record| text(&record.data)).collect())
        })
    }

    #[cfg(not(feature = "dnsaddr"))]
    fn texts(&self, _: String) -> BoxFuture<'_, Result<Vec<String>, String>> {
        Box::pin(async {
            Err("/dnsaddr needs the Cargo feature `dnsaddr` of the crate peerage, without which this program was built".to_owned())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peerage_identity::NodeKey;
    use std::collections::BTreeMap;

    #[derive(Debug, Default)]
    struct Zone {
        hosts: BTreeMap<String, Vec<IpAddr>>,
        texts: BTreeMap<String, Vec<String>>,
    }

    impl Resolve for Zone {
        fn addresses(&self, name: String) -> BoxFuture<'_, Result<Vec<IpAddr>, String>> {
            Box::pin(async move { self.hosts.get(&name).cloned().ok_or("no such name".to_owned()) })
        }
        fn texts(&self, name: String) -> BoxFuture<'_, Result<Vec<String>, String>> {
            Box::pin(async move { self.texts.get(&name).cloned().ok_or("no such name".to_owned()) })
        }
    }

    fn zone() -> Zone {
        let mut zone = Zone::default();
        let ips = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        zone.hosts.insert("host.example".into(), ips.to_vec());
        zone
    }

    async fn sockets(zone: &Zone, text: &str, expected: Option<PeerId>) -> Result<Vec<String>, String> {
        let places = places(zone, &text.parse().unwrap(), expected).await?;
        Ok(places.into_iter().map(|(socket, _)| socket.to_string()).collect())
    }

    #[tokio::test]
    async fn a_host_leads_to_its_addresses_of_the_right_family() {
        let zone = zone();
        let any = sockets(&zone, "/dns/host.example/udp/1/quic-v1", None).await.unwrap();
        assert_eq!(any, ["[2001:db8::1]:1", "192.0.2.1:1"]);
        assert_eq!(sockets(&zone, "/dns4/host.example/udp/1/quic-v1", None).await.unwrap(), ["192.0.2.1:1"]);
        assert_eq!(
            sockets(&zone, "/dns6/host.example/udp/1/quic-v1", None).await.unwrap(),
            ["[2001:db8::1]:1"]
        );
        let error = sockets(&zone, "/dns/none.example/udp/1/quic-v1", None).await.unwrap_err();
        assert!(error.contains("none.example cannot be resolved"), "{error}");
    }

    #[tokio::test]
    async fn a_dnsaddr_leads_through_others_to_the_addresses_of_the_wanted_peer() {
        let (wanted, other) = (NodeKey::generate().peer_id(), NodeKey::generate().peer_id());
        let mut zone = zone();
        let entries = [
            "unrelated".to_owned(),
            format!("dnsaddr=/ip4/192.0.2.7/udp/7/quic-v1/p2p/{other}"),
            format!("dnsaddr=/ip4/192.0.2.8/tcp/8/p2p/{wanted}"),
            format!("dnsaddr=/ip4/192.0.2.9/udp/9/quic-v1/p2p/{wanted}"),
            "dnsaddr=/dnsaddr/deeper.example".to_owned(),
        ];
        zone.texts.insert("_dnsaddr.start.example".into(), entries.to_vec());
        let deeper = "dnsaddr=/dns4/host.example/udp/10/quic-v1".to_owned();
        zone.texts.insert("_dnsaddr.deeper.example".into(), vec![deeper]);
        let found = sockets(&zone, "/dnsaddr/start.example", Some(wanted)).await.unwrap();
        assert_eq!(found, ["192.0.2.9:9", "192.0.2.1:10"]);
        let anyone = places(&zone, &"/dnsaddr/start.example".parse().unwrap(), None).await.unwrap();
        assert_eq!(
            anyone[0].1,
            Some(other),
            "an entry's peer ID is expected even when the caller named none"
        );
    }

    #[tokio::test]
    async fn a_dnsaddr_that_points_to_itself_or_to_nothing_ends() {
        let mut zone = Zone::default();
        let around = "dnsaddr=/dnsaddr/loop.example".to_owned();
        zone.texts.insert("_dnsaddr.loop.example".into(), vec![around; 3]);
        let error = sockets(&zone, "/dnsaddr/loop.example", None).await.unwrap_err();
        assert!(error.contains("leads to no address"), "{error}");
        let error = sockets(&zone, "/dnsaddr/none.example", None).await.unwrap_err();
        assert!(error.contains("_dnsaddr.none.example cannot be read"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_has_five_seconds_to_be_looked_up() {
        #[derive(Debug)]
        struct Slow(Duration);

        impl Resolve for Slow {
            fn addresses(&self, _: String) -> BoxFuture<'_, Result<Vec<IpAddr>, String>> {
                Box::pin(async move {
                    tokio::time::sleep(self.0).await;
                    Ok(vec!["192.0.2.1".parse().unwrap()])
                })
            }
            fn texts(&self, _: String) -> BoxFuture<'_, Result<Vec<String>, String>> {
                Box::pin(std::future::pending())
            }
        }
        let address = "/dns/slow.example/udp/1/quic-v1".parse().unwrap();
        for (millis, found) in [(4900, true), (5100, false)] {
            let start = tokio::time::Instant::now();
            let places = places(&Slow(Duration::from_millis(millis)), &address, None).await;
            assert_eq!(places.is_ok(), found, "{places:?}");
            assert!(start.elapsed() <= DEADLINE);
        }
    }

    #[tokio::test]
    async fn of_a_name_sixteen_addresses_sixty_four_records_and_three_levels_are_used() {
        let mut zone = zone();
        let ips = (1..=30).map(|host| IpAddr::from([192, 0, 2, host])).collect();
        zone.hosts.insert("many.example".into(), ips);
        let found = sockets(&zone, "/dns/many.example/udp/1/quic-v1", None).await.unwrap();
        assert_eq!(found.len(), MAX_ADDRESSES);

        for (unrelated, reached) in [(MAX_RECORDS - 1, true), (MAX_RECORDS, false)] {
            let mut texts = vec!["unrelated".to_owned(); unrelated];
            texts.push("dnsaddr=/dns4/host.example/udp/1/quic-v1".to_owned());
            zone.texts.insert("_dnsaddr.long.example".into(), texts);
            assert_eq!(sockets(&zone, "/dnsaddr/long.example", None).await.is_ok(), reached, "{unrelated}");
        }

        for level in 1..=MAX_DEPTH {
            let next = match level {
                1 => "dnsaddr=/dns4/host.example/udp/1/quic-v1".to_owned(),
                _ => format!("dnsaddr=/dnsaddr/level{}.example", level - 1),
            };
            zone.texts.insert(format!("_dnsaddr.level{level}.example"), vec![next]);
        }
        let deepest = format!("dnsaddr=/dnsaddr/level{MAX_DEPTH}.example");
        zone.texts.insert("_dnsaddr.too.deep.example".into(), vec![deepest]);
        let deep = format!("/dnsaddr/level{MAX_DEPTH}.example");
        assert_eq!(sockets(&zone, &deep, None).await.unwrap(), ["192.0.2.1:1"]);
        assert!(sockets(&zone, "/dnsaddr/too.deep.example", None).await.is_err());
    }
}
