//! The extension by which a certificate carries the host key (libp2p TLS specification).

use peerage_transport::fuzzing::certificate_extension;

use crate::text::assert_plain_error;

/// DER has one encoding: what was read is written as the same bytes.
pub fn run(data: &[u8]) {
    match certificate_extension(data) {
        Ok((key, signature)) => assert_eq!(encode(&key, &signature), data),
        Err(error) => assert_plain_error(&error),
    }
}

/// `SEQUENCE { OCTET STRING, OCTET STRING }`.
pub fn encode(key: &[u8], signature: &[u8]) -> Vec<u8> {
    tlv(0x30, &[tlv(0x04, key), tlv(0x04, signature)].concat())
}

fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = value.len().to_be_bytes();
    let significant = &length[length.iter().take_while(|byte| **byte == 0).count()..];
    let mut out = vec![tag];
    match value.len() {
        short @ 0..=0x7f => out.push(short as u8),
        _ => {
            out.push(0x80 | significant.len() as u8);
            out.extend(significant);
        }
    }
    out.extend(value);
    out
}
