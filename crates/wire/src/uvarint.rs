//! Unsigned varints as multiformats defines them: at most 9 bytes, 63 bits, and always the shortest form.
//!
//! Source: multiformats/unsigned-varint.

use bytes::BufMut;

/// The most bytes that one varint takes.
pub const MAX_LEN: usize = 9;

/// Why bytes are not an unsigned varint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UvarintError {
    /// Longer than nine bytes.
    #[error("a varint is longer than 9 bytes")]
    TooLong,
    /// A shorter form of the same number exists.
    #[error("a varint is not in its shortest form")]
    NotMinimal,
}

/// Writes `value` in its shortest form. Values of 2^63 and more, which the format does not have, are never lengths here.
#[inline]
pub fn put(value: u64, out: &mut impl BufMut) {
    debug_assert!(value < 1 << 63, "varints of the wire have 63 bits");
    let mut rest = value;
    while rest >= 0x80 {
        out.put_u8((rest as u8) | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

/// The number of bytes that [`put`] writes.
#[inline]
pub fn len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Reads a varint from the front: the value and how many bytes it took, `None` when more bytes are needed.
///
/// # Errors
/// [`UvarintError`] when no continuation could make it valid.
#[inline]
pub fn take(bytes: &[u8]) -> Result<Option<(u64, usize)>, UvarintError> {
    match bytes.first() {
        Some(byte) if byte & 0x80 == 0 => Ok(Some((u64::from(*byte), 1))),
        _ => take_long(bytes),
    }
}

fn take_long(bytes: &[u8]) -> Result<Option<(u64, usize)>, UvarintError> {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().take(MAX_LEN).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            if *byte == 0 && index > 0 {
                return Err(UvarintError::NotMinimal);
            }
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() >= MAX_LEN { Err(UvarintError::TooLong) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_longer_form_is_refused() {
        assert_eq!(take(&[0x81, 0x00]), Err(UvarintError::NotMinimal));
        assert_eq!(take(&[0x80; 9]), Err(UvarintError::TooLong));
        assert_eq!(take(&[0x80; 8]), Ok(None));
        assert_eq!(take(&[]), Ok(None));
        assert_eq!(take(&[0]), Ok(Some((0, 1))));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value in 0u64..1 << 63, tail: Vec<u8>) {
            let mut bytes = Vec::new();
            put(value, &mut bytes);
            let length = bytes.len();
            prop_assert_eq!(length, len(value));
            prop_assert_eq!(take(&bytes[..length - 1]).unwrap(), None);
            bytes.extend(tail);
            prop_assert_eq!(take(&bytes).unwrap(), Some((value, length)));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            if let Ok(Some((value, length))) = take(&bytes) {
                prop_assert_eq!(len(value), length);
            }
        }
    }
}
