//! Exponential backoff with full jitter.
//!
//! The delay after `n` failures is drawn evenly from zero to `base × 2ⁿ`, at most `ceiling`, plus a tenth of `base` so that it is
//! never nothing. Full jitter spreads the redials of many nodes that lost the same peer at the same moment.

use std::time::Duration;

use peerage_machine::Random;

/// The delay before the next dial after `failures` failures in a row.
pub(crate) fn delay(base: Duration, ceiling: Duration, failures: u32, random: &mut Random) -> Duration {
    let window = base.saturating_mul(1u32.checked_shl(failures).unwrap_or(u32::MAX)).min(ceiling);
    (random.up_to(window) + base / 10).min(ceiling)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// redial delay is bounded above and below for any number of failures, jittered, and survives overflow.
        #[test]
        fn a_delay_stays_between_its_bounds_for_any_number_of_failures(failures: u32, seed: u64) {
            let (base, ceiling) = (Duration::from_secs(1), Duration::from_secs(600));
            let delay = delay(base, ceiling, failures, &mut Random::from_number(seed));
            prop_assert!(delay >= Duration::from_millis(100));
            prop_assert!(delay <= ceiling);
        }
    }

    #[test]
    fn the_window_doubles_with_each_failure() {
        let mut random = Random::from_number(1);
        let (base, ceiling) = (Duration::from_secs(1), Duration::from_secs(600));
        for failures in 0..12 {
            let mean =
                (0..2000).map(|_| delay(base, ceiling, failures, &mut random).as_secs_f64()).sum::<f64>()
                    / 2000.0;
            let window = f64::from(1u32 << failures).min(600.0);
            assert!((mean - window / 2.0).abs() < window * 0.1 + 0.1, "{failures}: mean {mean}");
        }
    }
}
