//! Seeded randomness: the same seed gives the same choices on every machine.

use std::time::Duration;

use chacha20::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};

/// A stream of random choices, determined by its seed. A clone goes on with the same choices.
#[derive(Debug)]
pub struct Random(ChaCha8Rng);

impl Clone for Random {
    fn clone(&self) -> Self {
        Self(ChaCha8Rng::deserialize_state(&self.0.serialize_state()))
    }
}

impl Random {
    /// From 32 bytes, which in production come from the operating system.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(ChaCha8Rng::from_seed(seed))
    }

    /// From a number, as tests and simulations name their runs.
    pub fn from_number(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// A generator of its own for one part, so that parts don't disturb each other's choices.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        let mut seed = [0; 32];
        self.fill(&mut seed);
        Self::from_seed(seed)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    /// A number below `bound`, each as likely; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // Lemire's method: the high half of a 128-bit product, redrawn where a bias would arise.
        if bound == 0 {
            return 0;
        }
        let threshold = bound.wrapping_neg() % bound;
        loop {
            let product = u128::from(self.number()) * u128::from(bound);
            if product as u64 >= threshold {
                return (product >> 64) as u64;
            }
        }
    }

    /// An index into a collection of `len` elements; 0 when it is empty.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// A number in `0.0..1.0`.
    pub fn unit(&mut self) -> f64 {
        (self.number() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True with the given probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// A duration from zero up to and including `most`, each nanosecond as likely: full jitter.
    pub fn up_to(&mut self, most: Duration) -> Duration {
        let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX - 1);
        Duration::from_nanos(self.below(nanos.saturating_add(1)))
    }

    /// Puts a slice in random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.index(last + 1);
            items.swap(last, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A seed that was written down must show the same run in every version.
    #[test]
    fn a_seed_gives_the_choices_that_it_always_gave() {
        let mut random = Random::from_number(3);
        assert_eq!(random.number(), 0x9f7a_cbb4_1bbc_e95d);
        let mut bytes = [0; 7];
        random.fill(&mut bytes);
        assert_eq!(bytes, [0x9c, 0xf9, 0x91, 0xa3, 0x22, 0x30, 0xd0]);
        assert_eq!(Random::from_seed([7; 32]).number(), 0x391e_bc3f_59cb_d0e4);

        // Draws of all lengths, so that none begins at the same place of a block.
        let mut sum = 0u64;
        let mut add = |number| sum = sum.wrapping_mul(31).wrapping_add(number);
        for length in 0..5000 {
            let mut some = vec![0; length % 300];
            random.fill(&mut some);
            some.into_iter().for_each(|byte| add(u64::from(byte)));
            add(random.number());
        }
        assert_eq!(sum, 0x1536_d810_69f8_c3f0);
    }

    #[test]
    fn the_same_seed_gives_the_same_choices() {
        let draw = |seed| {
            let mut random = Random::from_number(seed);
            let mut fork = random.fork();
            (random.number(), fork.number(), random.index(10))
        };
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
    }

    proptest! {
        #[test]
        fn a_choice_stays_within_its_bound(seed: u64, bound in 1u64.., most in 0u64..u64::MAX) {
            let mut random = Random::from_number(seed);
            prop_assert!(random.below(bound) < bound);
            prop_assert!(random.up_to(Duration::from_nanos(most)) <= Duration::from_nanos(most));
            prop_assert!((0.0..1.0).contains(&random.unit()));
        }

        #[test]
        fn a_clone_goes_on_with_the_same_choices(seed: u64, drawn in 0usize..2000) {
            let mut random = Random::from_number(seed);
            random.fill(&mut vec![0; drawn]);
            let mut clone = random.clone();
            for _ in 0..200 {
                prop_assert_eq!(random.number(), clone.number());
            }
        }

        #[test]
        fn shuffling_keeps_every_item(seed: u64, mut items: Vec<u8>) {
            let mut shuffled = items.clone();
            Random::from_number(seed).shuffle(&mut shuffled);
            items.sort_unstable();
            shuffled.sort_unstable();
            prop_assert_eq!(items, shuffled);
        }
    }
}
