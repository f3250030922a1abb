//! Randomness: one stream for each node and purpose, so that a draw added in one place shifts none in another.

/// What a stream of draws is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// Peer IDs.
    Ids = 1,
    /// Where nodes are, and how far their access line is.
    Places = 2,
    /// Which entries a full bucket holds.
    Tables = 3,
    /// Who is silent, slow or hostile.
    Faults = 4,
    /// Who asks, and for what.
    Queries = 5,
    /// Which requests lose a packet, and how late a slow node answers.
    Requests = 6,
    /// Which contacts are warm.
    Connections = 7,
    /// When nodes come and go.
    Churn = 8,
    /// The seed of a node's machine.
    Machine = 9,
    /// Whom a joining node knows.
    Bootstrap = 10,
    /// What is stored, by whom.
    Records = 11,
    /// What attackers do.
    Attack = 12,
    /// Who cannot be dialled.
    Nat = 13,
}

/// A stream of draws that follows from a run's seed, a number (mostly a node's) and a purpose.
///
/// The generator is SplitMix64: small enough that each request can have a stream of its own.
#[derive(Debug, Clone)]
pub struct Stream(u64);

impl Stream {
    /// The stream of one node, or one query, for one purpose.
    pub fn new(seed: u64, number: u64, purpose: Purpose) -> Self {
        let mut stream = Self(mix(seed ^ 0x6a09_e667_f3bc_c909));
        stream.0 = mix(stream.0 ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        stream.0 = mix(stream.0 ^ (purpose as u64).wrapping_mul(0xc2b2_ae3d_27d4_eb4f));
        stream
    }

    /// A stream of its own for one part of what this one is for.
    pub fn part(&self, number: u64) -> Self {
        Self(mix(self.0 ^ mix(number.wrapping_add(0x9e37_79b9_7f4a_7c15))))
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number in `0.0..1.0`.
    pub fn unit(&mut self) -> f64 {
        (self.number() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number below `bound`; 0 when that is 0. The bias of the product is below 2⁻⁴⁰ for bounds that occur here.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.number()) * bound as u128) >> 64) as usize
    }

    /// True with the given probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// A number from the standard normal distribution, by Box and Muller.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// 32 bytes.
    pub fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for chunk in bytes.chunks_exact_mut(8) {
            chunk.copy_from_slice(&self.number().to_be_bytes());
        }
        bytes
    }

    /// `count` different numbers below `bound`, in the order in which they were drawn; all of them when there are fewer.
    pub fn sample(&mut self, bound: usize, count: usize) -> Vec<usize> {
        // The first `count` steps of Fisher and Yates.
        let mut order: Vec<usize> = (0..bound).collect();
        let count = count.min(bound);
        for place in 0..count {
            let other = place + self.below(bound - place);
            order.swap(place, other);
        }
        order.truncate(count);
        order
    }
}

fn mix(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_by_seed_node_and_purpose_and_repeat() {
        let draw = |seed, node, purpose| Stream::new(seed, node, purpose).number();
        assert_eq!(draw(1, 2, Purpose::Ids), draw(1, 2, Purpose::Ids));
        let others = [draw(2, 2, Purpose::Ids), draw(1, 3, Purpose::Ids), draw(1, 2, Purpose::Faults)];
        assert!(others.iter().all(|other| *other != draw(1, 2, Purpose::Ids)));
        let parent = Stream::new(1, 2, Purpose::Requests);
        assert_ne!(parent.part(0).number(), parent.part(1).number());
    }

    #[test]
    fn a_sample_has_no_number_twice() {
        let mut stream = Stream::new(7, 0, Purpose::Tables);
        let mut sample = stream.sample(50, 20);
        sample.sort_unstable();
        sample.dedup();
        assert_eq!(sample.len(), 20);
        assert_eq!(stream.sample(3, 20).len(), 3);
    }

    #[test]
    fn normal_draws_have_the_mean_and_the_spread_of_their_name() {
        let mut stream = Stream::new(3, 0, Purpose::Places);
        let draws: Vec<f64> = (0..20_000).map(|_| stream.normal()).collect();
        let mean = draws.iter().sum::<f64>() / 20_000.0;
        let spread = (draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>() / 20_000.0).sqrt();
        assert!(mean.abs() < 0.03 && (spread - 1.0).abs() < 0.03, "{mean} {spread}");
    }
}
