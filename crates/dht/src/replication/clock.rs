//! How often holders compare: from the churn that a node sees.

use std::time::Duration;

use super::ReplicationConfig;

/// The longest period T within the configured bounds after which all of `replicas` holders are gone with no more than the configured chance: (1 − R(T))^r, where
/// `stays` is R, the chance that a peer that is here now stays for so long.
pub fn period(config: &ReplicationConfig, replicas: usize, stays: impl Fn(Duration) -> f64) -> Duration {
    let safe = |period: Duration| {
        let gone = (1.0 - stays(period)).clamp(0.0, 1.0);
        gone.powi(i32::try_from(replicas).unwrap_or(i32::MAX)) <= config.loss_per_period
    };
    let (mut low, mut high) = (config.period_least, config.period_most);
    if safe(high) {
        return high;
    }
    // R falls with time: halving finds where it is just good enough.
    for _ in 0..16 {
        let middle = (low + high) / 2;
        match safe(middle) {
            true => low = middle,
            false => high = middle,
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exponential(mean_minutes: f64) -> impl Fn(Duration) -> f64 {
        move |span| (-span.as_secs_f64() / 60.0 / mean_minutes).exp()
    }

    #[test]
    fn the_period_follows_the_churn_within_a_minute_and_half_an_hour() {
        let config = ReplicationConfig::default();
        let minutes = |replicas, mean| period(&config, replicas, exponential(mean)).as_secs_f64() / 60.0;
        assert_eq!(minutes(12, 5.4 * 60.0), 30.0);
        assert_eq!(minutes(8, 1.0), 1.0);
        // r = 8 and a mean of 60 min: 1 - e^(-T/60) = 10^(-6/8), so T = 11.75 min.
        let quarter = minutes(8, 60.0);
        assert!((quarter - 11.75).abs() < 0.1, "{quarter}");
        assert!(minutes(12, 60.0) > quarter);
        let chance = (1.0 - exponential(60.0)(Duration::from_secs_f64(quarter * 60.0))).powi(8);
        assert!(chance <= 1.0e-6 && chance > 0.9e-6, "{chance}");
    }
}
