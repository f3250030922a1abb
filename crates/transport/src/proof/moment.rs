//! The two forms of a time in a certificate (RFC 5280 § 4.1.2.5), for any year that they can say.
//!
//! Foreign certificates are valid since the year 1, which common decoders refuse.

use der::asn1::AnyRef;
use der::{Reader, SliceReader, Tag};

/// Reads `UTCTime` as `YYMMDDHHMMSSZ` or `GeneralizedTime` as `YYYYMMDDHHMMSSZ`: seconds since 1970, which may be negative.
pub(super) fn seconds(reader: &mut SliceReader<'_>) -> der::Result<i64> {
    let time: AnyRef<'_> = reader.decode()?;
    let tag = time.header().tag();
    let seconds = match tag {
        Tag::UtcTime => numbers(time.value()).map(|[year, rest @ ..]| {
            // Two digits mean 1950 to 2049.
            let century = if year < 50 { 2000 } else { 1900 };
            (century + year, rest)
        }),
        Tag::GeneralizedTime => time.value().split_at_checked(2).and_then(|(century, rest)| {
            let [year, rest @ ..] = numbers(rest)?;
            Some((100 * two_digits(century)? + year, rest))
        }),
        _ => None,
    };
    seconds
        .and_then(|(year, [month, day, hour, minute, second])| {
            let possible = (1..=12).contains(&month)
                && (1..=days_of(year, month)).contains(&day)
                && hour < 24
                && minute < 60
                && second < 60;
            let days = days_before(year, month) + day - 1;
            possible.then_some(((days * 24 + hour) * 60 + minute) * 60 + second)
        })
        .ok_or_else(|| tag.value_error().into())
}

/// Six numbers of two digits each, and a `Z`.
fn numbers(text: &[u8]) -> Option<[i64; 6]> {
    let digits = text.strip_suffix(b"Z")?;
    if digits.len() != 12 {
        return None;
    }
    let mut numbers = [0; 6];
    for (number, pair) in numbers.iter_mut().zip(digits.chunks(2)) {
        *number = two_digits(pair)?;
    }
    Some(numbers)
}

fn two_digits(pair: &[u8]) -> Option<i64> {
    match pair {
        [tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => {
            Some(i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
        }
        _ => None,
    }
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to the first of the month, in the Gregorian calendar.
fn days_before(year: i64, month: i64) -> i64 {
    let leaps = |year: i64| year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let years = 365 * (year - 1970) + leaps(year - 1) - leaps(1969);
    years + (1..month).map(|month| days_of(year, month)).sum::<i64>()
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(tag: u8, text: &[u8]) -> Option<i64> {
        let bytes = [&[tag, text.len() as u8], text].concat();
        seconds(&mut SliceReader::new(&bytes).unwrap()).ok()
    }

    const UTC: u8 = 0x17;
    const GENERALIZED: u8 = 0x18;

    #[test]
    fn both_forms_give_seconds_since_1970() {
        assert_eq!(read(GENERALIZED, b"19700101000000Z"), Some(0));
        assert_eq!(read(UTC, b"700101000000Z"), Some(0));
        assert_eq!(read(UTC, b"491231235959Z"), Some(2_524_607_999));
        assert_eq!(read(UTC, b"500101000000Z"), Some(-631_152_000));
        assert_eq!(read(GENERALIZED, b"20240229120000Z"), Some(1_709_208_000));
        assert_eq!(read(GENERALIZED, b"00010101000000Z"), Some(-62_135_596_800));
        assert_eq!(read(GENERALIZED, b"99991231235959Z"), Some(253_402_300_799));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for bad in [
            &b""[..],
            b"Z",
            b"20240230000000Z",
            b"20230229000000Z",
            b"20241301000000Z",
            b"20240001000000Z",
            b"20240101240000Z",
            b"20240101006000Z",
            b"20240101000060Z",
            b"20240101000000",
            b"20240101000000+0000",
            b"202401010000Z",
            b"2024010100000aZ",
            b"20240101000000.5Z",
        ] {
            assert_eq!(read(GENERALIZED, bad), None, "{bad:?}");
            assert_eq!(read(UTC, bad), None, "{bad:?}");
        }
        assert_eq!(read(0x04, b"700101000000Z"), None);
    }

    proptest! {
        #[test]
        fn days_follow_one_another(year in 0i64..=9999, month in 1i64..=12) {
            let (next_year, next_month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
            prop_assert_eq!(days_before(next_year, next_month), days_before(year, month) + days_of(year, month));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            if let Ok(mut reader) = SliceReader::new(&bytes) {
                let _ = seconds(&mut reader);
            }
        }
    }
}
