//! How many requests a lookup begins at once and how soon the next one (dht.md B.2, rules 2 and 3; "Cost classes").

use std::time::Duration;

use crate::{Class, LookupConfig};

/// The pace of one lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Requests at the start.
    pub(crate) burst: usize,
    /// After so long without an answer the next one starts.
    pub(crate) stagger: Duration,
    /// Requests in flight, suspects not counted.
    pub(crate) cap: usize,
    /// The same, whatever raises it: as many as are configured, or as the caller permits.
    pub(crate) most: usize,
}

impl Pace {
    /// The pace of a class, where first hops take `median` of late.
    pub(crate) fn new(config: &LookupConfig, class: Class, alpha: usize, median: Option<Duration>) -> Self {
        let measured = median
            .unwrap_or(config.usual_rtt)
            .mul_f64(config.stagger_share)
            .clamp(config.stagger_least, config.stagger_most);
        let (burst, stagger, cap) = match class {
            Class::Interactive => (4, measured, 12),
            Class::Normal => (3, measured.max(Duration::from_millis(40)), 10),
            Class::Frugal => (1, Duration::from_millis(100), 4),
        };
        let most = config.alpha.clamp(LookupConfig::LEAST_ALPHA, LookupConfig::MOST_ALPHA);
        let cap = if alpha == 0 { cap.min(most) } else { alpha.clamp(1, most) };
        let most = if alpha == 0 { most } else { cap };
        Self { burst: burst.min(cap), stagger: config.stagger.unwrap_or(stagger), cap, most }
    }
}

impl Pace {
    /// The pace of a node that joins: it knows nobody, so that all whom it asks are of use to it, and nearly all of them must be dialled. It waits for nothing but slots.
    pub(crate) fn eager(config: &LookupConfig, class: Class) -> Self {
        let most = config.alpha.clamp(LookupConfig::LEAST_ALPHA, LookupConfig::MOST_ALPHA);
        let usual = Self::new(config, class, most, None);
        Self {
            burst: most,
            stagger: usual.stagger.min(config.stagger.unwrap_or(config.stagger_least)),
            cap: most,
            most,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(config: &LookupConfig, class: Class, alpha: usize, median: Option<u64>) -> Pace {
        Pace::new(config, class, alpha, median.map(Duration::from_millis))
    }

    /// AL-22, AL-25: the stagger is 0.18 of the median first hop, between 15 and 60 ms, or whatever is configured, such as 200 ms.
    #[test]
    fn the_stagger_follows_the_first_hops_within_bounds() {
        let config = LookupConfig::default();
        let stagger = |median| pace(&config, Class::Interactive, 0, median).stagger.as_millis();
        assert_eq!((stagger(None), stagger(Some(10))), (27, 15));
        assert_eq!((stagger(Some(150)), stagger(Some(5000))), (27, 60));
        assert_eq!(pace(&config, Class::Frugal, 0, Some(150)).stagger, Duration::from_millis(100));
        let fixed = LookupConfig { stagger: Some(Duration::from_millis(200)), ..config };
        assert_eq!(pace(&fixed, Class::Interactive, 0, Some(150)).stagger, Duration::from_millis(200));
    }

    #[test]
    fn a_node_that_joins_waits_for_nothing_but_slots() {
        let eager = |alpha| Pace::eager(&LookupConfig { alpha, ..Default::default() }, Class::Interactive);
        assert_eq!((eager(16).burst, eager(16).cap, eager(16).stagger), (16, 16, Duration::from_millis(15)));
        assert_eq!((eager(3).burst, eager(3).cap), (3, 3));
    }

    #[test]
    fn alpha_is_configurable_from_3_to_16() {
        let cap = |alpha, wanted| {
            pace(&LookupConfig { alpha, ..Default::default() }, Class::Interactive, wanted, None).cap
        };
        assert_eq!([cap(16, 0), cap(16, 16), cap(16, 99), cap(99, 99)], [12, 16, 16, 16]);
        assert_eq!([cap(5, 0), cap(5, 9), cap(0, 0), cap(1, 9)], [5, 5, 3, 3]);
        let costs = [Class::Interactive, Class::Normal, Class::Frugal].map(|class| {
            let pace = pace(&LookupConfig::default(), class, 0, Some(150));
            (pace.burst, pace.cap)
        });
        assert_eq!(costs, [(4, 12), (3, 10), (1, 4)]);
    }
}
