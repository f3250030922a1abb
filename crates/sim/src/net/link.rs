//! What a path does to packets: delay, loss, duplication, reordering, and a rate with a queue in front of it.

use std::time::Duration;

use peerage_machine::Random;

/// One direction of a path between two hosts. The default is a good one: 10 ms, nothing lost, as fast as one likes.
///
/// ```
/// use peerage_sim::Link;
///
/// // A road of 100 Mbit/s with a round trip of 50 ms, whose queue holds half of what is on the road, and that loses one packet in a hundred.
/// let link = Link::latency_ms(25).bandwidth(100_000_000, 312_500).loss(0.01);
/// assert_eq!(link.loss, 0.01);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// How long a packet takes at least. Rounded up to whole milliseconds, the grain of virtual time.
    pub latency: Latency,
    /// Up to so much more for each packet, as queues elsewhere would add it: packets stay in their order.
    pub jitter: Duration,
    /// The probability that a packet is lost.
    pub loss: f64,
    /// The probability that a packet arrives twice.
    pub duplication: f64,
    /// The probability that a packet is held back by `held_back`, so that later ones overtake it.
    pub reordering: f64,
    /// How long a reordered packet is held back.
    pub held_back: Duration,
    /// The rate; `None` is without limit.
    pub bandwidth: Option<Bandwidth>,
    /// The largest UDP payload that passes, in bytes. Larger packets vanish, as on a path that tells nothing.
    pub mtu: usize,
}

/// How long a packet takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Latency {
    /// Always the same.
    Constant(Duration),
    /// Drawn once for each pair of hosts, both bounds included; the same in both directions.
    Between(Duration, Duration),
}

/// A rate with a queue that drops what doesn't fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bandwidth {
    /// Bits a second, of whole IP packets.
    pub bits_per_second: u64,
    /// Bytes that may wait, beside the packet that is on its way out.
    pub queue_bytes: usize,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            latency: Latency::Constant(Duration::from_millis(10)),
            jitter: Duration::ZERO,
            loss: 0.0,
            duplication: 0.0,
            reordering: 0.0,
            held_back: Duration::from_millis(20),
            bandwidth: None,
            mtu: ETHERNET_PAYLOAD,
        }
    }
}

impl Link {
    /// The default, with another latency.
    pub fn latency_ms(ms: u64) -> Self {
        Self { latency: Latency::Constant(Duration::from_millis(ms)), ..Self::default() }
    }

    /// The default, with a latency that is drawn for each pair of hosts.
    pub fn between_ms(least: u64, most: u64) -> Self {
        let latency = Latency::Between(Duration::from_millis(least), Duration::from_millis(most));
        Self { latency, ..Self::default() }
    }

    /// With another probability of loss.
    #[must_use]
    pub fn loss(self, loss: f64) -> Self {
        Self { loss, ..self }
    }

    /// With another jitter.
    #[must_use]
    pub fn jitter_ms(self, ms: u64) -> Self {
        Self { jitter: Duration::from_millis(ms), ..self }
    }

    /// With another probability of duplication.
    #[must_use]
    pub fn duplication(self, duplication: f64) -> Self {
        Self { duplication, ..self }
    }

    /// With another probability of reordering.
    #[must_use]
    pub fn reordering(self, reordering: f64) -> Self {
        Self { reordering, ..self }
    }

    /// With a rate, and a queue that drops what doesn't fit.
    #[must_use]
    pub fn bandwidth(self, bits_per_second: u64, queue_bytes: usize) -> Self {
        Self { bandwidth: Some(Bandwidth { bits_per_second, queue_bytes }), ..self }
    }

    /// With another largest UDP payload.
    #[must_use]
    pub fn mtu(self, mtu: usize) -> Self {
        Self { mtu, ..self }
    }
}

/// The state of one direction between two hosts.
#[derive(Debug)]
pub(crate) struct Pipe {
    random: Random,
    latency_seed: u64,
    /// When the last packet has left the queue.
    free_at: Duration,
    /// When the last packet in order arrives.
    last_arrival: Duration,
}

/// What became of a packet at the entrance of a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passage {
    /// It arrives then; and a second time, where it was duplicated.
    Arrives { at: Duration, again: Option<Duration>, reordered: bool },
    /// The path lost it.
    Lost,
    /// The queue was full.
    Overflow,
    /// It was larger than what passes.
    TooLarge,
}

impl Pipe {
    /// `seed` is this direction's; `latency_seed` that of the pair.
    pub(crate) fn new(seed: u64, latency_seed: u64) -> Self {
        Self {
            random: Random::from_number(seed),
            latency_seed,
            free_at: Duration::ZERO,
            last_arrival: Duration::ZERO,
        }
    }

    /// Sends a UDP payload of `bytes` in at `now`. Every packet costs the same draws, so that what happens to one doesn't change the others' luck.
    pub(crate) fn pass(&mut self, now: Duration, bytes: usize, link: &Link) -> Passage {
        let [lost, twice, held] =
            [link.loss, link.duplication, link.reordering].map(|chance| self.random.chance(chance));
        let jitter = self.random.up_to(link.jitter);
        if bytes > link.mtu {
            return Passage::TooLarge;
        }
        let Some(left) = self.leave_queue(now, bytes, link.bandwidth) else { return Passage::Overflow };
        if lost {
            return Passage::Lost;
        }
        let arrival = left + self.latency(link.latency) + jitter;
        let at = if held {
            whole_millis(arrival + link.held_back)
        } else {
            self.last_arrival = whole_millis(arrival).max(self.last_arrival);
            self.last_arrival
        };
        let again = twice.then(|| at + Duration::from_millis(1));
        Passage::Arrives { at, again, reordered: held }
    }

    /// When the packet has gone through the queue and onto the wire; `None` when it doesn't fit.
    fn leave_queue(&mut self, now: Duration, bytes: usize, bandwidth: Option<Bandwidth>) -> Option<Duration> {
        let Some(Bandwidth { bits_per_second, queue_bytes }) = bandwidth else { return Some(now) };
        let rate = u128::from(bits_per_second.max(1));
        let backlog = self.free_at.saturating_sub(now);
        let waiting = backlog.as_nanos() * rate / 8 / NANOS;
        let size = (bytes + IP_AND_UDP) as u128;
        if waiting > 0 && waiting + size > queue_bytes as u128 {
            return None;
        }
        let takes = Duration::from_nanos(u64::try_from(size * 8 * NANOS / rate).unwrap_or(u64::MAX));
        self.free_at = self.free_at.max(now).saturating_add(takes);
        Some(self.free_at)
    }

    fn latency(&self, latency: Latency) -> Duration {
        match latency {
            Latency::Constant(latency) => whole_millis(latency),
            Latency::Between(least, most) => {
                let mut drawn = Random::from_number(self.latency_seed);
                let (least, most) = (whole_millis(least).as_millis(), whole_millis(most).as_millis());
                let more = drawn.below((most.saturating_sub(least) + 1) as u64);
                Duration::from_millis(least as u64 + more)
            }
        }
    }
}

/// Rounds up to what tokio's timers can tell apart.
pub(crate) fn whole_millis(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX))
}

/// The UDP payload that fits an Ethernet frame over IPv4, in bytes.
const ETHERNET_PAYLOAD: usize = 1472;
/// What a UDP payload weighs more on the wire, over IPv4, in bytes.
const IP_AND_UDP: usize = 28;
const NANOS: u128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn arrivals(pipe: &mut Pipe, link: &Link, at: Duration, packets: usize, bytes: usize) -> Vec<Passage> {
        (0..packets).map(|_| pipe.pass(at, bytes, link)).collect()
    }

    #[test]
    fn a_rate_spreads_a_burst_and_the_queue_drops_what_does_not_fit() {
        // 1 Mbit/s: a packet of 1,222 + 28 bytes takes 10 ms. One is on its way out, and three fit behind it.
        let link = Link::latency_ms(5).bandwidth(1_000_000, 4 * 1250);
        let mut pipe = Pipe::new(1, 1);
        let passed = arrivals(&mut pipe, &link, Duration::ZERO, 6, 1222);
        let arrives = |at| Passage::Arrives { at: ms(at), again: None, reordered: false };
        let expected =
            [arrives(15), arrives(25), arrives(35), arrives(45), Passage::Overflow, Passage::Overflow];
        assert_eq!(passed, expected);
        assert_eq!(pipe.pass(ms(10), 1222, &link), arrives(55), "room again when one has left");
    }

    #[test]
    fn a_packet_larger_than_the_mtu_vanishes() {
        let link = Link::latency_ms(5).mtu(1300);
        let mut pipe = Pipe::new(1, 1);
        assert_eq!(pipe.pass(ms(0), 1301, &link), Passage::TooLarge);
        assert!(matches!(pipe.pass(ms(0), 1300, &link), Passage::Arrives { .. }));
    }

    #[test]
    fn loss_and_duplication_happen_as_often_as_asked() {
        let link = Link::latency_ms(5).loss(0.3).duplication(0.1);
        let passed = arrivals(&mut Pipe::new(9, 9), &link, Duration::ZERO, 20_000, 100);
        let lost = passed.iter().filter(|passage| **passage == Passage::Lost).count();
        let twice = passed
            .iter()
            .filter(|passage| matches!(passage, Passage::Arrives { again: Some(_), .. }))
            .count();
        assert!((5_700..6_300).contains(&lost), "{lost}");
        assert!((1_250..1_550).contains(&twice), "{twice}: a tenth of those that were not lost");
    }

    #[test]
    fn jitter_keeps_the_order_and_reordering_breaks_it() {
        let overtakes = |link: &Link| {
            let mut pipe = Pipe::new(3, 3);
            let times: Vec<_> = (0..200)
                .map(|i| match pipe.pass(ms(i), 100, link) {
                    Passage::Arrives { at, .. } => at,
                    other => panic!("{other:?}"),
                })
                .collect();
            times.windows(2).filter(|pair| pair[1] < pair[0]).count()
        };
        assert_eq!(overtakes(&Link::latency_ms(5).jitter_ms(30)), 0);
        assert!(overtakes(&Link::latency_ms(5).reordering(0.1)) > 5);
    }

    #[test]
    fn a_drawn_latency_is_whole_milliseconds_within_its_bounds_and_stays() {
        let link = Link::between_ms(20, 80);
        let latencies: Vec<_> = (0..200)
            .map(|seed| {
                let mut pipe = Pipe::new(seed, seed);
                let passed = arrivals(&mut pipe, &link, Duration::ZERO, 2, 100);
                assert_eq!(passed[0], passed[1]);
                match passed[0] {
                    Passage::Arrives { at, .. } => at,
                    other => panic!("{other:?}"),
                }
            })
            .collect();
        assert!(
            latencies.iter().all(|at| (ms(20)..=ms(80)).contains(at) && at.subsec_nanos() % 1_000_000 == 0)
        );
        assert!(latencies.iter().max() > Some(&ms(70)) && latencies.iter().min() < Some(&ms(30)));
    }
}
