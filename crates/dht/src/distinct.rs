//! How many different keys came, in a kibibyte: exact while they are few, an estimate afterwards (HyperLogLog, with the estimator of Ertl 2017).

use crate::Key;

/// Counts different keys. Keys are hashes, so that a key that comes again changes nothing, and the longest run of zeros among those of a register tells how many there were.
/// Who tries very many keys can find such as make the estimate too large: it is for people to read, and nothing is decided by it.
#[derive(Debug, Clone)]
pub(crate) enum Distinct {
    /// Eight bytes of each, in their order.
    Few(Vec<u64>),
    /// Of each register the longest run of zeros, and one.
    Many(Box<[u8; Distinct::REGISTERS]>),
}

impl Distinct {
    /// So many are counted one by one.
    pub(crate) const FEW: usize = 128;
    /// The standard error is 1.04 divided by the root of this: 3.3 %.
    const REGISTERS: usize = 1 << Self::BITS;
    const BITS: u32 = 10;

    pub(crate) fn new() -> Self {
        Self::Few(Vec::new())
    }

    /// A key came.
    pub(crate) fn note(&mut self, key: &Key) {
        let [a, b, c, d, e, f, g, h, ..] = key.to_bytes();
        let hash = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        match self {
            Self::Many(registers) => mark(registers, hash),
            Self::Few(hashes) => match hashes.binary_search(&hash) {
                Ok(_) => {}
                Err(at) if hashes.len() < Self::FEW => hashes.insert(at, hash),
                Err(_) => {
                    let mut registers = Box::new([0; Self::REGISTERS]);
                    hashes.iter().chain([&hash]).for_each(|hash| mark(&mut registers, *hash));
                    *self = Self::Many(registers);
                }
            },
        }
    }

    /// How many different ones came. It never falls.
    pub(crate) fn count(&self) -> u64 {
        match self {
            Self::Few(hashes) => hashes.len() as u64,
            Self::Many(registers) => (estimate(registers).round() as u64).max(Self::FEW as u64 + 1),
        }
    }
}

fn mark(registers: &mut [u8; Distinct::REGISTERS], hash: u64) {
    let register = &mut registers[(hash >> (64 - Distinct::BITS)) as usize];
    // A one behind the last bit: no run is longer than what is left of the hash.
    let rest = hash << Distinct::BITS | 1 << (Distinct::BITS - 1);
    *register = (*register).max(rest.leading_zeros() as u8 + 1);
}

fn estimate(registers: &[u8; Distinct::REGISTERS]) -> f64 {
    let all = Distinct::REGISTERS as f64;
    let empty = registers.iter().filter(|run| **run == 0).count() as f64;
    let sum: f64 = registers.iter().filter(|run| **run > 0).map(|run| 0.5f64.powi(i32::from(*run))).sum();
    all * all / (2.0 * std::f64::consts::LN_2 * (sum + all * sigma(empty / all)))
}

/// What the empty registers add: x + x² + 2 x⁴ + 4 x⁸ and so on, for a share of them below one.
fn sigma(share: f64) -> f64 {
    let (mut power, mut weight, mut sum) = (share, 1.0, share);
    loop {
        power *= power;
        let next = sum + power * weight;
        weight *= 2.0;
        if next <= sum || !next.is_finite() {
            return sum;
        }
        sum = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> Key {
        Key::of(&number.to_be_bytes())
    }

    #[test]
    fn few_are_counted_exactly_and_many_within_a_tenth() {
        let mut distinct = Distinct::new();
        let mut before = 0;
        for number in 1..=200_000u64 {
            distinct.note(&key(number));
            distinct.note(&key(number / 2 + 1));
            if number <= Distinct::FEW as u64 {
                assert_eq!(distinct.count(), number.max(number / 2 + 1));
            } else if number.is_power_of_two() || number % 997 == 0 {
                let count = distinct.count();
                assert!((number * 9 / 10..=number * 11 / 10).contains(&count), "{count} of {number}");
                assert!(count >= before);
                before = count;
            }
        }
    }

    #[test]
    fn its_memory_is_a_kibibyte() {
        assert!(Distinct::FEW * size_of::<u64>() <= 1024 && Distinct::REGISTERS <= 1024);
    }
}
