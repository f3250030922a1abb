//! Whether many peers have died at once (dht.md B.1, "Liveness"): a cut cable, a power failure, a bad release.
//!
//! Each look at a peer is compared with what the model of sessions expected of it. As long as peers die as usual, a sum of log-likelihood ratios stays near zero; when
//! far more do, it climbs, and beyond a threshold everybody who has not answered since it left zero is in doubt (Page's cumulative sum test). The model itself
//! learns nothing from them: who dies by accident says nothing about how long others stay.

/// Watches looks at peers for a mass failure. Times are in seconds of the node's life.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Shock {
    /// The sum, and since when it is above zero.
    sum: f64,
    began: u32,
    /// Looks since then, and how many of them found somebody dead.
    looks: u32,
    dead: u32,
    /// The last failure that was found: who has not answered since is dead with this chance, whatever the model says.
    found: Option<(u32, f64)>,
}

impl Shock {
    /// Beyond it a mass failure is taken for sure: by chance alone it is reached once in hundreds of looks.
    const SURE: f64 = 5.0;
    /// What a mass failure adds to the chance of being dead, at least.
    const SHARE: f64 = 0.25;

    /// The chance that a peer that last answered at `answered` is dead, when the model says `usual`.
    pub(crate) fn dead(&self, answered: u32, usual: f64) -> f64 {
        match self.found {
            Some((since, share)) if answered < since => 1.0 - (1.0 - usual) * (1.0 - share),
            _ => usual,
        }
    }

    /// Whether a mass failure is to blame for the silence of a peer that last answered at `answered`, rather than its age.
    pub(crate) fn explains(&self, answered: u32) -> bool {
        self.found.is_some_and(|(since, _)| answered < since)
    }

    /// A peer was looked at that was dead with the chance `expected`. `true` when that makes a mass failure certain.
    pub(crate) fn look(&mut self, second: u32, expected: f64, died: bool) -> bool {
        let expected = expected.clamp(0.001, 0.95);
        let then = 1.0 - (1.0 - expected) * (1.0 - Self::SHARE);
        let step = if died { (then / expected).ln() } else { ((1.0 - then) / (1.0 - expected)).ln() };
        if self.sum <= 0.0 {
            (self.began, self.looks, self.dead) = (second, 0, 0);
        }
        self.looks += 1;
        self.dead += u32::from(died);
        // One look in itself is never proof.
        self.sum = (self.sum + step.min(Self::SURE / 3.0)).max(0.0);
        if self.sum < Self::SURE {
            return false;
        }
        self.found = Some((self.began, f64::from(self.dead) / f64::from(self.looks)));
        self.sum = 0.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks at peers, of whom `share` are dead and `expected` were expected to be; after how many it is sure.
    fn looks(share: f64, expected: f64, seed: u64) -> Option<usize> {
        let mut random = peerage_machine::Random::from_number(seed);
        let mut shock = Shock::default();
        (0..2_000).position(|second| shock.look(second, expected, random.unit() < share))
    }

    #[test]
    fn a_mass_failure_is_found_within_some_dozens_of_looks() {
        let mut took: Vec<usize> = (0..200).map(|seed| looks(0.37, 0.1, seed).unwrap()).collect();
        took.sort_unstable();
        assert!(took[100] <= 30 && took[190] <= 90, "{} {}", took[100], took[190]);
    }

    #[test]
    fn who_dies_as_usual_seldom_looks_like_one() {
        let alarms = (0..200).filter(|seed| looks(0.1, 0.1, *seed).is_some_and(|at| at < 500)).count();
        assert!(alarms < 100, "{alarms} of 200 within 500 looks");
    }

    #[test]
    fn only_who_has_not_answered_since_is_in_doubt() {
        let mut shock = Shock::default();
        assert!((0..).map(|look| shock.look(100 + look, 0.1, true)).take(10).any(|sure| sure));
        assert!(shock.explains(99) && !shock.explains(100));
        assert!(shock.dead(99, 0.1) > 0.9 && shock.dead(100, 0.1) == 0.1);
    }
}
