//! Joining the network and staying in it: the lookup for ourselves, refreshes, probes, and beginning anew when everybody is gone.

use std::net::IpAddr;
use std::time::Duration;

use peerage_identity::PeerId;
use peerage_machine::{Now, Random, TokenBucket};

use super::operation::Aim;
use super::requests::Purpose;
use super::{Class, Dht, Event, Output, Source};
use crate::outage::Outage;
use crate::table::seconds;
use crate::{Answer, Contact, Distance, Key, MAX_SILENT, Query, Target, UpkeepConfig};

/// So many lookups in a row that go on from a sparse place ([`crate::LookupConfig::sparse`]) and come to no denser one end that for a while.
pub const MAX_VAIN_ESCAPES: u32 = 5;
/// For so long.
pub const ESCAPE_PAUSE: Duration = Duration::from_secs(600);

/// Where a node stands with the network, and what it spends on staying there.
#[derive(Debug)]
pub(super) struct Upkeep {
    /// Contacts to begin with: what the user named, and what an earlier run kept.
    known: Vec<Contact>,
    /// Those whom the user named, as long as the networks behind them have not been compared.
    first: Vec<Contact>,
    /// Sizes of the network as seen through each of them, and how many are still to come.
    sizes: Vec<f64>,
    comparing: usize,
    /// The largest of them, where they disagreed, until the size is measured well enough.
    larger: Option<f64>,
    /// Lookups in a row that went on from a sparse place to no denser one, and until when no further one does.
    vain: u32,
    content_until: Duration,
    /// The operation that looks ourselves up, while it runs.
    joining: Option<u64>,
    joined: bool,
    /// An earlier run has measured the network, and not long ago: nothing is urgent once this one has joined.
    resumed: bool,
    since: Duration,
    /// When to begin anew, and how often that came to nothing.
    rejoin: Option<Duration>,
    attempts: u32,
    refresh: Option<Duration>,
    refreshes: u32,
    /// Refreshes of the early kind that are still to come.
    pub(super) early: u32,
    /// How far the farthest of the siblings lay when that was last looked at anew.
    around: Option<f64>,
    /// The next look at probes.
    look: Duration,
    /// Bytes that probes may cost.
    probes: TokenBucket,
    /// Peers that may be asked whether they are worth an entry.
    pub(super) admissions: TokenBucket,
    hints: TokenBucket,
    /// Peers that are looked at because others say that they are silent.
    doubts: TokenBucket,
}

impl Upkeep {
    /// A PING and its answer, and a FIND_NODE and its answer, in bytes: what a probe of a Peerage node costs, and one of a foreign node.
    const PING_BYTES: f64 = 120.0;
    const FIND_NODE_BYTES: f64 = 1800.0;
    /// Who waits for a place, and what is due, is looked at so often at most.
    const LOOK_EVERY: Duration = Duration::from_secs(1);

    /// Somebody can be reached again: a node that is alone joins at once.
    pub(super) fn hasten(&mut self, now: Now) {
        if self.rejoin.is_some() {
            self.rejoin = Some(now.mono);
        }
    }

    /// An earlier run has measured the network: where all come back at once, lookups for its size and looks at whoever is named would be most of what is sent. Those whom that run
    /// knew are looked at first, and they too one after another: nothing has been saved for that yet.
    pub(super) fn resume(&mut self, config: &UpkeepConfig, now: Now) {
        (self.resumed, self.early) = (true, 0);
        self.admissions.charge(config.admission_burst, now);
        let saved = self.probes.available(now) - 2.0 * Self::FIND_NODE_BYTES;
        self.probes.charge(saved.max(0.0), now);
    }

    pub(super) fn new(config: &UpkeepConfig, now: Now) -> Self {
        let savings = config.probe_bytes_per_second * config.probe_savings.as_secs_f64();
        let burst = savings.max(2.0 * Self::FIND_NODE_BYTES);
        Self {
            known: Vec::new(),
            first: Vec::new(),
            sizes: Vec::new(),
            comparing: 0,
            larger: None,
            vain: 0,
            content_until: Duration::ZERO,
            joining: None,
            joined: false,
            resumed: false,
            since: now.mono,
            rejoin: None,
            attempts: 0,
            refresh: None,
            refreshes: 0,
            early: config.early_refreshes,
            around: None,
            look: Duration::MAX,
            probes: TokenBucket::new(burst, config.probe_bytes_per_second, now),
            admissions: TokenBucket::new(config.admission_burst, config.admissions_per_second, now),
            hints: TokenBucket::new(config.hint_burst, config.hints_per_second, now),
            doubts: TokenBucket::new(config.doubt_burst, config.doubts_per_second, now),
        }
    }

    pub(super) fn is_joined(&self) -> bool {
        self.joined
    }

    pub(super) fn known(&self) -> &[Contact] {
        &self.known
    }

    /// Whether somebody may be leading this node astray: its first contacts disagreed on how large the network is.
    pub(super) fn is_led(&self) -> bool {
        self.larger.is_some()
    }

    /// Whether lookups may go on from sparse places.
    pub(super) fn may_escape(&self, now: Now) -> bool {
        now.mono >= self.content_until
    }

    /// A lookup went on from a sparse place, and it helped or not. Where it doesn't time and again, the network is smaller than we take it for.
    pub(super) fn escaped(&mut self, now: Now, helped: bool) {
        self.vain = if helped { 0 } else { self.vain + 1 };
        if self.vain >= MAX_VAIN_ESCAPES {
            (self.vain, self.content_until) = (0, now.mono + ESCAPE_PAUSE);
        }
    }

    /// Lookups for ourselves, and those through first contacts, are those that are waited for.
    pub(super) fn check_lookups(
        &self,
        joins: usize,
        compares: usize,
        is_join: impl Fn(u64) -> bool,
    ) -> Result<(), String> {
        let waits = self.joining.map(|operation| usize::from(is_join(operation)));
        if waits.unwrap_or(1) != 1 || joins != usize::from(self.joining.is_some()) {
            return Err(format!("{joins} lookups for ourselves, {:?} is waited for", self.joining));
        }
        match compares == self.comparing {
            true => Ok(()),
            false => Err(format!("{compares} lookups through first contacts, not {}", self.comparing)),
        }
    }

    /// No bucket owes more than it may: whoever has a ping's worth may pay for the dearer question of a foreign node.
    pub(super) fn check_buckets(&self) -> Result<(), String> {
        let probes = Self::FIND_NODE_BYTES - Self::PING_BYTES;
        let buckets = [
            ("probes", &self.probes, probes),
            ("admissions", &self.admissions, 0.0),
            ("hints", &self.hints, 0.0),
            ("doubts", &self.doubts, 0.0),
        ];
        buckets
            .into_iter()
            .try_for_each(|(name, bucket, most)| bucket.check(most).map_err(|why| format!("{name}: {why}")))
    }

    /// When something is to be done.
    pub(super) fn next(&self) -> Duration {
        self.look.min(self.rejoin.unwrap_or(Duration::MAX)).min(self.refresh.unwrap_or(Duration::MAX))
    }
}

impl Dht {
    /// So many of the first contacts are compared.
    const COMPARED: usize = 3;
    /// Networks that differ in size by this factor are not one network: each is seen with an error of a quarter.
    const DISAGREE: f64 = 4.0;

    pub(super) fn on_known(&mut self, now: Now, contacts: Vec<Contact>, source: Source) {
        let most = self.config.upkeep.known_contacts;
        let mut added = false;
        for contact in &contacts {
            let news = !self.upkeep.known.iter().any(|known| known.key() == contact.key());
            if news && contact.key() != &self.key {
                if self.upkeep.known.len() >= most {
                    self.upkeep.known.remove(0);
                } else {
                    added = true;
                }
                self.upkeep.known.push(contact.clone());
            }
        }
        // Those of the book are brought after every attempt: whoever has just failed waits for the end of the pause, or there would be none.
        if source == Source::Book && self.upkeep.rejoin.is_some() && !added {
            return;
        }
        if source == Source::Bootstrap && !self.upkeep.joined {
            let room = Self::COMPARED.saturating_sub(self.upkeep.first.len());
            self.upkeep.first.extend(contacts.iter().take(room).cloned());
        }
        self.join_with(now, contacts);
    }

    /// Begins to join with these contacts, or gives them to the lookup that is joining.
    pub(super) fn join_with(&mut self, now: Now, contacts: Vec<Contact>) {
        if let Some(joining) = self.upkeep.joining {
            self.add_seeds(now, joining, contacts);
        } else if !self.upkeep.joined || self.is_alone(now) {
            self.join(now);
        }
    }

    /// The first peer stands in the table.
    pub(super) fn first_peer(&mut self, now: Now) {
        self.upkeep.look = self.upkeep.look.min(now.mono + Upkeep::LOOK_EVERY);
        if self.upkeep.joining.is_none() && !self.upkeep.joined {
            self.join(now);
        }
    }

    /// The node was put into a network that stands.
    pub(super) fn settle_in(&mut self, now: Now) {
        self.upkeep.joined = true;
        self.upkeep.look = now.mono + Upkeep::LOOK_EVERY;
        if self.upkeep.refresh.is_none() {
            self.upkeep.refresh = Some(now.mono + self.random.up_to(self.config.upkeep.refresh_every));
        }
    }

    fn join(&mut self, now: Now) {
        let target = Target::of_peer(&self.peer);
        if !self.upkeep.joined && self.upkeep.attempts == 0 {
            self.upkeep.since = now.mono;
        }
        self.upkeep.rejoin = None;
        match self.begin(now, Aim::Join, target, Class::Interactive) {
            Some(operation) => {
                self.upkeep.joining = Some(operation);
                self.drive(now, operation);
            }
            None => self.try_again(now),
        }
    }

    /// The lookup for ourselves has ended.
    pub(super) fn joined(&mut self, now: Now) {
        self.upkeep.joining = None;
        if self.is_alone(now) {
            self.tell_alone(now);
            return self.try_again(now);
        }
        self.upkeep.attempts = 0;
        if !self.upkeep.joined {
            let took = now.mono.saturating_sub(self.upkeep.since);
            self.outputs.push_back(Output::Event(Event::Joined { peers: self.table.len(), took }));
        }
        self.upkeep.joined = true;
        self.upkeep.look = self.upkeep.look.min(now.mono + Upkeep::LOOK_EVERY);
        let within = match std::mem::take(&mut self.upkeep.resumed) {
            true => self.config.upkeep.refresh_every,
            false => self.config.upkeep.early_every,
        };
        let soon = now.mono + self.random.up_to(within);
        self.upkeep.refresh = Some(self.upkeep.refresh.map_or(soon, |refresh| refresh.min(soon)));
        let first = std::mem::take(&mut self.upkeep.first);
        if first.len() >= 2 {
            for contact in first {
                if let Some(operation) = self.begin_through(now, contact) {
                    self.upkeep.comparing += 1;
                    self.drive(now, operation);
                }
            }
        }
    }

    /// A lookup through one of the first contacts has ended; zero when that contact led nowhere.
    pub(super) fn compared(&mut self, size: f64) {
        self.upkeep.comparing = self.upkeep.comparing.saturating_sub(1);
        if size > 0.0 {
            self.upkeep.sizes.push(size);
        }
        if self.upkeep.comparing > 0 {
            return;
        }
        let mut sizes = std::mem::take(&mut self.upkeep.sizes);
        sizes.sort_by(f64::total_cmp);
        self.upkeep.larger = None;
        if let (Some(least), Some(most)) = (sizes.first(), sizes.last())
            && *most > Self::DISAGREE * *least
        {
            self.upkeep.larger = Some(*most);
            let event = Event::SizesDisagree { least: *least, most: *most };
            self.outputs.push_back(Output::Event(event));
        }
    }

    /// How large the network is, as far as a place may look too sparse for it: what was measured or, until that is settled, what was seen through the first contact that showed most,
    /// if they disagreed. Who shows more peers than there are makes newcomers look a little longer, and not for long ([`Upkeep::escaped`]).
    pub(super) fn largest_size(&mut self, now: Now) -> Option<f64> {
        if self.size.samples() >= self.config.upkeep.settled_samples {
            self.upkeep.larger = None;
        }
        self.size.size(now).into_iter().chain(self.upkeep.larger).reduce(f64::max)
    }

    /// Nobody answered: ask the driver for somebody, and try again after a pause that doubles.
    fn try_again(&mut self, now: Now) {
        let config = &self.config.upkeep;
        let pause =
            config.rejoin_first.saturating_mul(1 << self.upkeep.attempts.min(16)).min(config.rejoin_most);
        self.upkeep.attempts = self.upkeep.attempts.saturating_add(1);
        self.upkeep.rejoin = Some(now.mono + pause / 2 + self.random.up_to(pause / 2));
        self.outputs.push_back(Output::WantContacts);
    }

    /// Whether nobody of the table is of use: none may be asked or, while our own network is suspected, none has answered for as long as is looked back for that. Then it is down, or all
    /// whom we knew are gone, which only somebody else can tell.
    pub(super) fn is_alone(&self, now: Now) -> bool {
        let lately = seconds(now).saturating_sub(Outage::SPAN.as_secs() as u32);
        self.table.usable() == 0 || self.outages.is_suspected() && !self.table.has_answered_after(lately)
    }

    /// Looks whether the table is of no use any more: then the node begins anew.
    pub(super) fn check_alone(&mut self, now: Now) {
        if self.upkeep.joined && self.upkeep.joining.is_none() && self.is_alone(now) {
            // Those who may be asked are asked once more before it is said that they are gone.
            if self.table.usable() == 0 {
                self.tell_alone(now);
            }
            self.join(now);
        }
    }

    fn tell_alone(&mut self, now: Now) {
        if std::mem::take(&mut self.upkeep.joined) {
            self.upkeep.since = now.mono;
            self.outputs.push_back(Output::Event(Event::Alone));
        }
    }

    /// Does what has become due.
    pub(super) fn keep_up(&mut self, now: Now) {
        if self.upkeep.rejoin.is_some_and(|rejoin| rejoin <= now.mono) {
            self.upkeep.rejoin = None;
            if self.upkeep.joining.is_none() {
                self.join(now);
            }
        }
        if self.upkeep.refresh.is_some_and(|refresh| refresh <= now.mono) {
            self.refresh(now);
        }
        if self.upkeep.look <= now.mono {
            self.look(now);
        }
    }

    /// Looks up a place at random: it measures the size of the network and brings new peers. Every eighth time, when the first are done, it is our own place.
    fn refresh(&mut self, now: Now) {
        let config = &self.config.upkeep;
        let early = self.upkeep.early > 0;
        let every = match early {
            true => config.early_every,
            false if self.size.samples() < config.settled_samples => config.settling_every,
            false => config.refresh_every,
        };
        self.upkeep.early = self.upkeep.early.saturating_sub(1);
        self.upkeep.refreshes = self.upkeep.refreshes.wrapping_add(u32::from(!early));
        self.upkeep.refresh = Some(now.mono + every / 2 + self.random.up_to(every));
        let own = !early && self.upkeep.refreshes.is_multiple_of(8);
        let (aim, target) = match own {
            true => (Aim::Neighbours, Target::of_peer(&self.peer)),
            false => (Aim::Refresh, random_target(&mut self.random)),
        };
        if let Some(operation) = self.begin(now, aim, target, Class::Frugal) {
            self.drive(now, operation);
        }
    }

    /// A lookup has measured the size of the network. When it disagrees with those before, the next one comes soon, and either bears it out or not.
    pub(super) fn measured(&mut self, now: Now, kth: Distance) {
        let odd = self.size.size(now).is_some_and(|size| self.size.is_odd(size, kth));
        self.size.add(now, kth);
        if odd {
            self.refresh_within(now, self.config.upkeep.early_every);
        }
    }

    fn refresh_within(&mut self, now: Now, time: Duration) {
        let soon = now.mono + time / 2 + self.random.up_to(time);
        self.upkeep.refresh = self.upkeep.refresh.map(|refresh| refresh.min(soon));
    }

    /// Looks whether the neighbourhood is another one than it was: newcomers show themselves to those near them first, so that it tells of a crowd before any lookup does.
    fn look_around(&mut self, now: Now) {
        let siblings = self.config.table.siblings;
        let farthest =
            self.table.siblings().get(siblings.max(1) - 1).map(|last| last.key().distance(&self.key).share());
        let Some(farthest) = farthest.filter(|share| *share > 0.0) else { return };
        let before = *self.upkeep.around.get_or_insert(farthest);
        let change = self.config.upkeep.neighbourhood_change.max(1.0).ln();
        if self.upkeep.early == 0 && (farthest / before).ln().abs() > change {
            self.upkeep.around = Some(farthest);
            self.upkeep.early = self.config.upkeep.early_refreshes;
            self.refresh_within(now, self.config.upkeep.early_every);
        }
    }

    /// Probes who may be dead, and asks those who wait for a free place, within the budget.
    fn look(&mut self, now: Now) {
        let at_once = self.config.upkeep.probes_at_once;
        while self.upkeep.probes.available(now) >= Upkeep::PING_BYTES && self.requests.probes() < at_once {
            let Some(contact) = self.table.probe(now) else { break };
            let extended = self.table.get(contact.key()).is_some_and(|entry| entry.extended);
            let cost = if extended { Upkeep::PING_BYTES } else { Upkeep::FIND_NODE_BYTES };
            self.upkeep.probes.charge(cost, now);
            let query = match extended {
                true => Query::Ping,
                false => Query::FindNode { target: Target::of_peer(&self.peer) },
            };
            self.ask(now, &contact, query, Class::Frugal, Purpose::Probe);
        }
        let second = now.mono.as_secs();
        let all_seen = self.table.next_due().is_none_or(|due| u64::from(due) > second);
        // Who is known comes before who might be: a question of fifteen pings' price waits until all who are due were looked at.
        while all_seen && self.upkeep.probes.available(now) >= Upkeep::FIND_NODE_BYTES {
            let Some(contact) = self.table.promote() else { break };
            if !self.requests.has_tried(now, contact.key()) {
                self.upkeep.probes.charge(Upkeep::FIND_NODE_BYTES, now);
                self.prove(now, &contact);
            }
        }
        self.check_alone(now);
        self.look_around(now);
        let due = self.table.next_due().map_or(Duration::MAX, |due| Duration::from_secs(due.into()));
        let wait = self.upkeep.probes.wait_for(Upkeep::PING_BYTES, now).unwrap_or(Upkeep::LOOK_EVERY);
        let idle = now.mono + 30 * Upkeep::LOOK_EVERY;
        self.upkeep.look = due.min(idle).max(now.mono + wait.max(Upkeep::LOOK_EVERY));
    }

    /// Somebody who serves, and whom we don't know: asked at once when a place is free, remembered otherwise.
    pub(super) fn consider(&mut self, now: Now, contact: &Contact) {
        if contact.key() == &self.key || self.table.get(contact.key()).is_some() {
            return;
        }
        let tried = self.requests.has_tried(now, contact.key());
        if !tried && self.table.has_room_for(contact) && self.upkeep.admissions.take(1.0, now) {
            self.prove(now, contact);
        } else if !tried {
            self.table.heard(contact);
        }
    }

    fn prove(&mut self, now: Now, contact: &Contact) {
        let query = Query::FindNode { target: Target::of_peer(&self.peer) };
        self.ask(now, contact, query, Class::Frugal, Purpose::Probe);
    }

    /// Those whom an answer names may be worth an entry: hearsay until they have answered themselves.
    pub(super) fn learn(&mut self, now: Now, remote: IpAddr, answer: &Answer) {
        for named in answer.closer.iter().take(self.config.table.k) {
            if self.upkeep.admissions.available(now) < 1.0 {
                break;
            }
            if let Some(contact) = named.credible_from(remote)
                && !contact.has_no_address()
                && self.table.has_room_for(&contact)
            {
                self.consider(now, &contact);
            }
        }
    }

    /// Somebody says that peers don't answer: those that we would name are looked at soon, within a budget, so that what is said of all of them leaves time to look at who waits.
    pub(super) fn doubt(&mut self, now: Now, peers: &[PeerId]) {
        for peer in peers.iter().take(MAX_SILENT) {
            let key = Key::of_peer(peer);
            if self.table.may_doubt(now, &key) && self.upkeep.doubts.take(1.0, now) {
                self.table.doubt(now, &key);
            }
        }
    }

    /// Tells those who named peers that don't answer, within a budget. They will look for themselves.
    pub(super) fn hint(&mut self, now: Now, silent: &[(Contact, Contact)]) {
        let mut told: Vec<(&Contact, Vec<PeerId>)> = Vec::new();
        for (peer, advisor) in silent {
            match told.iter_mut().find(|(known, _)| known == &advisor) {
                Some((_, peers)) if peers.len() < MAX_SILENT => peers.push(*peer.peer()),
                Some(_) => {}
                None => told.push((advisor, vec![*peer.peer()])),
            }
        }
        for (advisor, peers) in told {
            let understands = self.table.get(advisor.key()).is_some_and(|entry| entry.extended);
            if understands && self.upkeep.hints.take(1.0, now) {
                self.ask(now, advisor, Query::Silent { peers }, Class::Frugal, Purpose::Notice);
            }
        }
    }

    /// The network has changed under us: nobody is to blame for what failed, and everybody is worth another try.
    pub(super) fn on_network_changed(&mut self, now: Now) {
        self.outages.forget();
        self.table.freeze(false);
        self.table.pardon(now, 0);
        self.upkeep.attempts = 0;
        self.upkeep.look = now.mono;
        self.upkeep.hasten(now);
    }
}

/// A place at random, as FIND_NODE can name it.
pub(super) fn random_target(random: &mut Random) -> Target {
    let mut name = [0; 32];
    random.fill(&mut name);
    Target::of_hash(&name)
}

/// A place at random within `radius` of `center`, as FIND_NODE can name it: names are tried until the hash of one falls there. `None` when the radius is so
/// small that this would take long.
pub(super) fn target_near(random: &mut Random, center: &Key, radius: Distance) -> Option<Target> {
    const TRIES: u32 = 1 << 16;
    (0..TRIES).map(|_| random_target(random)).find(|target| target.key().distance(center) <= radius)
}
