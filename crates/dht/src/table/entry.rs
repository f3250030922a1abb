//! A peer in the table, and how alive it probably is (dht.md B.1, "Liveness" and "Failure").

use std::time::Duration;

use crate::rtt::Rtt;
use crate::{Contact, Subnet};

/// What is known of a peer's liveness (AL-17).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// Its last request was answered.
    Good,
    /// Its last request failed, or took too long and was given up.
    Suspect,
    /// Two requests in a row failed: it is neither asked nor named until its time is over.
    Quarantined,
}

/// One verified peer. Times are in seconds of the node's life, so that an entry stays small.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) contact: Contact,
    /// Where it was when it was verified.
    pub(crate) subnet: Option<Subnet>,
    pub(crate) rtt: Rtt,
    /// When it was verified.
    pub(crate) since: u32,
    /// When it last answered.
    pub(crate) answered: u32,
    /// When it last failed to answer.
    pub(crate) failed: u32,
    /// When it is to be probed unless it answers before: in quarantine, when its time is over.
    pub(crate) due: u32,
    /// How much of what it was asked it answered, of late: 0 to 1.
    pub(crate) success: f32,
    /// Requests in a row that failed.
    pub(crate) failures: u8,
    /// Quarantines in a row.
    pub(crate) quarantines: u8,
    /// Whether it understands our additions to libp2p's messages.
    pub(crate) extended: bool,
    /// Whether a probe of it is under way.
    pub(crate) probing: bool,
}

impl Entry {
    pub(crate) fn new(contact: Contact, subnet: Option<Subnet>, now: u32) -> Self {
        Self {
            contact,
            subnet,
            rtt: Rtt::default(),
            since: now,
            answered: now,
            failed: 0,
            due: u32::MAX,
            success: 1.0,
            failures: 0,
            quarantines: 0,
            extended: false,
            probing: false,
        }
    }

    pub(crate) fn health(&self) -> Health {
        match self.failures {
            0 => Health::Good,
            1 => Health::Suspect,
            _ => Health::Quarantined,
        }
    }

    /// Whether it may be named to others, and asked.
    pub(crate) fn is_usable(&self) -> bool {
        self.failures < 2
    }

    /// For how long it has been seen alive.
    pub(crate) fn uptime(&self) -> u32 {
        self.answered.saturating_sub(self.since)
    }
}

/// When a peer that was alive is probably gone: a Weibull distribution of sessions, whose hazard falls with age, so that who has stayed long needs few
/// probes. Its shape and scale are those of a public network (dht.md A.4); a factor learned from what this node sees corrects them.
#[derive(Debug, Clone)]
pub(crate) struct Lifetimes {
    shape: f64,
    /// In seconds.
    scale: f64,
    /// Deaths that the model without its factor expected, and those that were seen; both fade.
    expected: f64,
    seen: f64,
}

impl Lifetimes {
    /// The weight of the model's own word, in deaths.
    const PRIOR: f64 = 4.0;
    /// Beyond so many expected deaths the older half fades.
    const MEMORY: f64 = 200.0;

    pub(crate) fn new(shape: f64, scale: Duration) -> Self {
        Self { shape, scale: scale.as_secs_f64(), expected: 0.0, seen: 0.0 }
    }

    /// The chance that a peer that was up for `uptime` when it last answered has died in the `silent` seconds since.
    pub(crate) fn dead(&self, uptime: u32, silent: u32) -> f64 {
        1.0 - (-self.factor() * self.hazard(uptime, silent)).exp()
    }

    /// How many seconds after its last answer the chance reaches `share`.
    pub(crate) fn until(&self, uptime: u32, share: f64) -> u32 {
        let wanted = -(1.0 - share).ln() / self.factor();
        let before = (f64::from(uptime) / self.scale).powf(self.shape);
        let age = self.scale * (before + wanted).powf(1.0 / self.shape);
        (age - f64::from(uptime)).clamp(1.0, 86_400.0) as u32
    }

    /// Learns from a peer that was looked at `silent` seconds after its last answer.
    pub(crate) fn learn(&mut self, uptime: u32, silent: u32, died: bool) {
        self.expected += self.hazard(uptime, silent);
        self.seen += f64::from(u8::from(died));
        if self.expected > Self::MEMORY {
            self.expected /= 2.0;
            self.seen /= 2.0;
        }
    }

    /// The chance that a peer drawn at random from those up stays for `span` more: for clocks of repair (dht.md A.4). With `uptime` known.
    pub(crate) fn stays(&self, uptime: u32, span: Duration) -> f64 {
        1.0 - self.dead(uptime, span.as_secs().min(u64::from(u32::MAX)) as u32)
    }

    fn factor(&self) -> f64 {
        (self.seen + Self::PRIOR) / (self.expected + Self::PRIOR)
    }

    fn hazard(&self, uptime: u32, silent: u32) -> f64 {
        let at = |seconds: f64| (seconds / self.scale).powf(self.shape);
        at(f64::from(uptime) + f64::from(silent)) - at(f64::from(uptime))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> Lifetimes {
        Lifetimes::new(0.61, Duration::from_secs(13_176))
    }

    #[test]
    fn who_has_stayed_long_is_probed_seldom() {
        let model = model();
        let young = model.until(0, 0.1);
        let old = model.until(24 * 3600, 0.1);
        assert!((200..500).contains(&young), "{young}");
        assert!(old > 3600, "{old}");
        assert!((model.dead(3600, model.until(3600, 0.1)) - 0.1).abs() < 0.01);
    }

    #[test]
    fn the_model_learns_how_fast_this_network_changes() {
        let mut harsh = model();
        (0..100).for_each(|round| harsh.learn(600, 300, round % 2 == 0));
        assert!(harsh.until(600, 0.1) < model().until(600, 0.1) / 3);
        let mut calm = model();
        (0..2000).for_each(|_| calm.learn(600, 600, false));
        assert!(calm.until(600, 0.1) > model().until(600, 0.1) * 5);
        assert!(calm.stays(600, Duration::from_secs(3600)) > harsh.stays(600, Duration::from_secs(3600)));
    }
}
