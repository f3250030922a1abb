//! The peers to whom a connection stands: warm, and proven to be who they are.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use peerage_identity::PeerId;
use peerage_machine::Now;

use super::Dht;
use crate::{Contact, Key};

#[derive(Debug)]
struct Link {
    contact: Contact,
    rtt: Option<Duration>,
    /// Whether it advertises the protocol; `None` before it has said so.
    serves: Option<bool>,
}

/// Who is connected. The driver bounds them, as it bounds connections.
#[derive(Debug, Default)]
pub(super) struct Links(BTreeMap<Key, Link>);

impl Links {
    /// The connected peer with the addresses that it says it has.
    pub(super) fn get(&self, key: &Key) -> Option<&Contact> {
        self.0.get(key).map(|link| &link.contact).filter(|contact| !contact.has_no_address())
    }

    pub(super) fn is_connected(&self, key: &Key) -> bool {
        self.0.contains_key(key)
    }

    pub(super) fn rtt(&self, key: &Key) -> Option<Duration> {
        self.0.get(key)?.rtt
    }

    /// Whether it says that it serves; `None` when it isn't connected or hasn't said.
    pub(super) fn serves(&self, key: &Key) -> Option<bool> {
        self.0.get(key)?.serves
    }

    /// Those who serve, the closest to `target` first.
    pub(super) fn closest(&self, target: &Key, count: usize) -> Vec<Contact> {
        let serving = self.0.values().filter(|link| link.serves == Some(true));
        let mut found: Vec<&Contact> = serving.map(|link| &link.contact).collect();
        found.sort_by_cached_key(|contact| contact.key().distance(target));
        found.into_iter().take(count).cloned().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Dht {
    pub(super) fn on_connected(
        &mut self,
        now: Now,
        contact: &Contact,
        remote: IpAddr,
        rtt: Option<Duration>,
    ) {
        // What it says of itself is a stranger's word too: no address of a network that it has no part in.
        let contact = contact.as_told_from(remote);
        self.seen.note(now, contact.key());
        let serves = self.links.serves(contact.key());
        let key = *contact.key();
        self.links.0.insert(key, Link { contact, rtt, serves });
        if serves == Some(true) {
            self.meet(now, &key);
        }
    }

    pub(super) fn on_disconnected(&mut self, peer: &PeerId) {
        self.links.0.remove(&Key::of_peer(peer));
        self.forget_watcher(peer);
    }

    pub(super) fn on_supports(&mut self, now: Now, key: &Key, serves: bool) {
        let Some(link) = self.links.0.get_mut(key) else { return };
        link.serves = Some(serves);
        match serves {
            true => self.meet(now, key),
            // AL-33, dht.md B.8: who doesn't advertise the protocol is in nobody's table.
            false => self.table.remove(key),
        }
    }

    /// A connected peer serves: it may be somebody to begin with, or worth an entry.
    fn meet(&mut self, now: Now, key: &Key) {
        let Some(contact) = self.links.get(key).cloned() else { return };
        self.consider(now, &contact);
        self.join_with(now, vec![contact]);
    }
}
