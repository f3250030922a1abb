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
