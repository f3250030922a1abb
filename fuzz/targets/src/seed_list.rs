//! A file of seeds, one address a line.

use peerage::fuzzing;
use peerage_identity::DialAddress;

use crate::text::assert_plain;

/// Each line is a seed that reads again as the same, or named as bad, or empty; the words are fit for a log.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (seeds, bad) = fuzzing::seed_list(&text);
    assert!(seeds.len() + bad.len() <= text.lines().count());
    for seed in seeds {
        assert_eq!(seed.to_string().parse::<DialAddress>().as_ref(), Ok(&seed));
    }
    for line in bad {
        assert!((1..=text.lines().count()).contains(&line.number));
        assert_plain(&line.to_string(), 2048);
    }
}
