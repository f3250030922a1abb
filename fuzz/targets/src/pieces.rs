//! Cuts of an input: the pieces in which a stream may deliver it.

use bytes::Bytes;

/// The whole, single bytes, and two cuts at places that look random but are the same for the same input.
pub fn cuts(data: &[u8]) -> [Vec<Bytes>; 4] {
    let all = Bytes::copy_from_slice(data);
    let mut random = Random::seeded(data);
    let mut uneven = |most| cut(&all, || 1 + random.next() as usize % most);
    let (small, large) = (uneven(7), uneven(200));
    [vec![all.clone()], cut(&all, || 1), small, large]
}

fn cut(all: &Bytes, mut length: impl FnMut() -> usize) -> Vec<Bytes> {
    let (mut rest, mut pieces) = (all.clone(), Vec::new());
    while !rest.is_empty() {
        pieces.push(rest.split_to(length().min(rest.len())));
    }
    pieces
}

/// FNV-1a for the seed, xorshift64 after it.
struct Random(u64);

impl Random {
    fn seeded(data: &[u8]) -> Self {
        let hash = data.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
        });
        Self(hash | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cut_holds_the_whole_input() {
        let data: Vec<u8> = (0..=255).collect();
        for pieces in cuts(&data) {
            assert_eq!(pieces.concat(), data);
            assert!(pieces.iter().all(|piece| !piece.is_empty()));
        }
        assert_eq!(cuts(&data), cuts(&data));
    }
}
