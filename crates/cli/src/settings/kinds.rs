//! What a setting can be: how its value is read from TOML and shown again.
//!
//! Each kind is a module with `read` and `show`, so that a line of the table names one and nothing else. An error says what would be right.

use toml::de::DeValue;

/// A whole number.
pub(super) mod count {
    use super::*;

    pub(in super::super) fn read<T: TryFrom<u64>>(value: &DeValue<'_>) -> Result<T, String> {
        integer(value)
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| "give a whole number".to_owned())
    }

    pub(in super::super) fn show(value: &impl ToString) -> String {
        value.to_string()
    }
}

/// Yes or no.
pub(super) mod flag {
    use super::*;

    pub(in super::super) fn read(value: &DeValue<'_>) -> Result<bool, String> {
        value.as_bool().ok_or_else(|| "give true or false".to_owned())
    }

    pub(in super::super) fn show(value: &bool) -> String {
        value.to_string()
    }
}

/// Bytes: a whole number, or a text with a unit.
pub(super) mod bytes {
    use super::*;
    use bytesize::ByteSize;

    const HINT: &str = "give a number of bytes or a text such as \"8 MiB\"";

    pub(in super::super) fn read<T: TryFrom<u64>>(value: &DeValue<'_>) -> Result<T, String> {
        let number = match value.as_str() {
            Some(text) => text.parse::<ByteSize>().ok().map(|size| size.as_u64()),
            None => integer(value),
        };
        number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| HINT.to_owned())
    }

    pub(in super::super) fn show<T: Copy + TryInto<u64>>(value: &T) -> String {
        let bytes: u64 = (*value).try_into().unwrap_or(u64::MAX);
        for (unit, size) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
            if bytes >= size && bytes.is_multiple_of(size) {
                return format!("\"{} {unit}\"", bytes / size);
            }
        }
        bytes.to_string()
    }
}

/// A time: a text with a unit.
pub(super) mod time {
    use super::*;
    use std::time::Duration;

    pub(in super::super) fn read(value: &DeValue<'_>) -> Result<Duration, String> {
        let time = value.as_str().and_then(|text| humantime::parse_duration(text).ok());
        time.ok_or_else(|| "give a time as a text such as \"30s\", \"250ms\" or \"10m\"".to_owned())
    }

    pub(in super::super) fn show(value: &Duration) -> String {
        format!("\"{}\"", humantime::format_duration(*value))
    }
}

/// A time that may be missing: zero says so.
pub(super) mod time_or_none {
    use super::*;
    use std::time::Duration;

    pub(in super::super) fn read(value: &DeValue<'_>) -> Result<Option<Duration>, String> {
        time::read(value).map(|time| Some(time).filter(|time| !time.is_zero()))
    }

    pub(in super::super) fn show(value: &Option<Duration>) -> String {
        time::show(&value.unwrap_or_default())
    }
}

/// A whole number that may be missing: zero says so.
pub(super) mod count_or_none {
    use super::*;

    pub(in super::super) fn read(value: &DeValue<'_>) -> Result<Option<u64>, String> {
        count::read(value).map(|count| Some(count).filter(|count| *count > 0))
    }

    pub(in super::super) fn show(value: &Option<u64>) -> String {
        count::show(&value.unwrap_or_default())
    }
}

/// A number that may have a fraction.
pub(super) mod number {
    use super::*;

    pub(in super::super) fn read(value: &DeValue<'_>) -> Result<f64, String> {
        let number = match value {
            DeValue::Float(number) => number.as_str().replace('_', "").parse().ok(),
            _ => integer(value).map(|number| number as f64),
        };
        number
            .filter(|number: &f64| number.is_finite() && *number >= 0.0)
            .ok_or_else(|| "give a number of at least 0".to_owned())
    }

    pub(in super::super) fn show(value: &f64) -> String {
        value.to_string()
    }
}

/// How often something may happen: a number of times a second, or a text where it is more rarely than that and the number would be unreadable.
pub(super) mod often {
    use super::*;
    use std::time::Duration;

    const ONCE: &str = "once in ";
    /// A number with more characters says nothing to people.
    const READABLE: usize = 6;

    pub(in super::super) fn read(value: &DeValue<'_>) -> Result<f64, String> {
        let pause = match value.as_str() {
            None => return number::read(value),
            Some(text) => text.strip_prefix(ONCE).and_then(|time| humantime::parse_duration(time).ok()),
        };
        pause
            .filter(|pause| !pause.is_zero())
            .map(per_second)
            .ok_or_else(|| "give a number of at least 0, or a text such as \"once in 5m\"".to_owned())
    }

    pub(in super::super) fn show(value: &f64) -> String {
        let text = number::show(value);
        let pause = Duration::try_from_secs_f64((1.0 / value).round()).unwrap_or_default();
        // Only what is read as the same number.
        if text.len() <= READABLE || pause.is_zero() || per_second(pause) != *value {
            return text;
        }
        format!("\"{ONCE}{}\"", humantime::format_duration(pause))
    }

    fn per_second(pause: Duration) -> f64 {
        1.0 / pause.as_secs_f64()
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use toml::de::DeTable;

        fn read_text(text: &str) -> Result<f64, String> {
            let text = format!("x = {text}");
            read(DeTable::parse(&text).unwrap().get_ref()["x"].get_ref())
        }

        #[test]
        fn what_is_rare_is_said_in_words_and_read_as_words_or_numbers() {
            for (value, text) in [
                (1.0 / 300.0, "\"once in 5m\""),
                (0.5, "0.5"),
                (10.0, "10"),
                (0.0, "0"),
                (1.0 / 3600.0, "\"once in 1h\""),
            ] {
                assert_eq!(show(&value), text);
                assert_eq!(read_text(text), Ok(value));
            }
            assert_eq!(read_text("0.0033333333333333335"), Ok(1.0 / 300.0));
            assert_eq!(read_text("\"once in 250ms\""), Ok(4.0));
            let odd = 0.123_456_789;
            assert_eq!(read_text(&show(&odd)), Ok(odd));
            for bad in ["\"once in 0s\"", "\"once\"", "\"5m\"", "-1", "true"] {
                assert!(read_text(bad).is_err(), "{bad}");
            }
        }
    }
}

/// So many at once, then so many a second.
pub(super) mod rate {
    use super::*;
    use peerage::Rate;

    pub(in super::super) fn read(value: &DeValue<'_>) -> Result<Rate, String> {
        let hint = || "give { burst = N, per_second = N }".to_owned();
        let table = value.as_table().filter(|table| table.len() == 2).ok_or_else(hint)?;
        let part = |name: &str| table.get(name).and_then(|part| integer(part.get_ref()));
        let part = |name: &str| part(name).and_then(|part| u32::try_from(part).ok()).ok_or_else(hint);
        Ok(Rate::new(part("burst")?, part("per_second")?))
    }

    pub(in super::super) fn show(value: &Rate) -> String {
        format!("{{ burst = {}, per_second = {} }}", value.burst, value.per_second)
    }
}

/// One word of a few.
pub(super) mod choice {
    use super::*;

    /// A value that is one of a few words.
    pub(in super::super) trait Choice: Copy + PartialEq + 'static {
        /// Each value and its word.
        const ALL: &'static [(&'static str, Self)];
    }

    pub(in super::super) fn read<T: Choice>(value: &DeValue<'_>) -> Result<T, String> {
        let word = value.as_str();
        T::ALL.iter().find(|(name, _)| Some(*name) == word).map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<_> = T::ALL.iter().map(|(name, _)| format!("\"{name}\"")).collect();
            format!("give {}", words.join(" or "))
        })
    }

    pub(in super::super) fn show<T: Choice>(value: &T) -> String {
        T::ALL
            .iter()
            .find(|(_, known)| known == value)
            .map(|(name, _)| format!("\"{name}\""))
            .unwrap_or_default()
    }
}

/// One word of a few, or the word that leaves it to the node.
pub(super) mod choice_or_none {
    use super::choice::Choice;
    use super::*;

    const NONE: &str = "auto";

    pub(in super::super) fn read<T: Choice>(value: &DeValue<'_>) -> Result<Option<T>, String> {
        match value.as_str() {
            Some(NONE) => Ok(None),
            _ => choice::read(value).map(Some).map_err(|hint| format!("{hint}, or \"{NONE}\"")),
        }
    }

    pub(in super::super) fn show<T: Choice>(value: &Option<T>) -> String {
        value.as_ref().map_or_else(|| format!("\"{NONE}\""), choice::show)
    }
}

/// A text that has a form of its own, such as an address.
pub(super) mod text {
    use super::*;
    use std::fmt::Display;
    use std::str::FromStr;

    pub(in super::super) fn read<T: FromStr<Err: Display>>(value: &DeValue<'_>) -> Result<Option<T>, String> {
        parse(value).map(Some)
    }

    pub(in super::super) fn show<T: Display>(value: &Option<T>) -> String {
        value.as_ref().map(|value| format!("{:?}", value.to_string())).unwrap_or_default()
    }

    pub(super) fn parse<T: FromStr<Err: Display>>(value: &DeValue<'_>) -> Result<T, String> {
        let text = value.as_str().ok_or("give a text")?;
        text.parse().map_err(|error: T::Err| error.to_string())
    }
}

/// A list of texts that have a form of their own.
pub(super) mod texts {
    use super::*;
    use std::fmt::Display;
    use std::str::FromStr;

    pub(in super::super) fn read<T: FromStr<Err: Display>>(value: &DeValue<'_>) -> Result<Vec<T>, String> {
        let list = value.as_array().ok_or("give a list of texts, such as [\"…\", \"…\"]")?;
        list.iter().map(|item| text::parse(item.get_ref())).collect()
    }

    pub(in super::super) fn show<T: Display>(value: &[T]) -> String {
        let items: Vec<_> = value.iter().map(|item| format!("{:?}", item.to_string())).collect();
        format!("[{}]", items.join(", "))
    }
}

fn integer(value: &DeValue<'_>) -> Option<u64> {
    let number = value.as_integer()?;
    u64::from_str_radix(&number.as_str().replace('_', ""), number.radix()).ok()
}
