//! The syntax of host names: RFC 1123 § 2.1 with underscores, in ASCII.

/// The most characters of a DNS name, without the final dot (RFC 1035 § 2.3.4).
pub const MAX_DNS_NAME: usize = 253;

/// The name in the form in which we keep it: lower case, no final dot. The error is a rule and a remedy.
pub(super) fn normalise(name: &str) -> Result<String, &'static str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        return Err("it is empty (give a name)");
    }
    if name.len() > MAX_DNS_NAME {
        return Err("it has more than 253 characters (give a shorter name)");
    }
    if !name.is_ascii() {
        return Err("it is not ASCII (write an international name in its xn-- form)");
    }
    for label in name.split('.') {
        check_label(label)?;
    }
    if ends_in_a_number(name) {
        return Err("it ends in a number, so resolvers take it for an IP address (write /ip4/…)");
    }
    Ok(name.to_ascii_lowercase())
}

fn check_label(label: &str) -> Result<(), &'static str> {
    if label.is_empty() {
        return Err("there is nothing between two dots (remove one)");
    }
    if label.len() > 63 {
        return Err("a part of it has more than 63 characters (give a shorter name)");
    }
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !label.bytes().all(is_allowed) {
        return Err("only letters, digits, `-`, `_` and dots are allowed (correct it)");
    }
    if label.starts_with('-') || label.ends_with('-') {
        return Err("a part of it begins or ends with `-` (correct it)");
    }
    Ok(())
}

/// The rule by which resolvers and browsers tell numbers from names: no top-level domain is a number.
fn ends_in_a_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    match last.strip_prefix("0x").or(last.strip_prefix("0X")) {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => last.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_in_one_form() {
        for (given, kept) in [
            ("Example.COM", "example.com"),
            ("example.com.", "example.com"),
            ("localhost", "localhost"),
            ("_dnsaddr.a-1.x", "_dnsaddr.a-1.x"),
            ("1.example", "1.example"),
            ("xn--mnchen-3ya.de", "xn--mnchen-3ya.de"),
        ] {
            assert_eq!(normalise(given).as_deref(), Ok(kept));
        }
    }

    #[test]
    fn impossible_names_are_refused_by_the_rule_that_they_break() {
        for (name, rule) in [
            ("", "empty"),
            (".", "empty"),
            ("a..b", "between two dots"),
            (".a", "between two dots"),
            ("a b", "only letters"),
            ("a%b", "only letters"),
            ("münchen.de", "xn--"),
            ("-a.de", "`-`"),
            ("a-.de", "`-`"),
            ("192.0.2.1", "ends in a number"),
            ("0x7f000001", "ends in a number"),
            ("2130706433", "ends in a number"),
            ("a.0X", "ends in a number"),
        ] {
            let reason = normalise(name).unwrap_err();
            assert!(reason.contains(rule), "{name}: {reason}");
        }
    }

    #[test]
    fn lengths_are_bounded_for_the_name_and_for_each_part() {
        let label = "a".repeat(63);
        let longest = [&label[..], &label, &label, &"a".repeat(61)].join(".");
        assert_eq!(longest.len(), MAX_DNS_NAME);
        assert!(normalise(&longest).is_ok());
        assert!(normalise(&format!("{longest}a")).is_err());
        assert!(normalise(&format!("{label}a")).is_err());
    }
}
