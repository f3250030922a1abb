//! What channels and requests carry.

use bytes::{Bytes, BytesMut};

/// What a channel or a request carries: any protobuf message, or [`Raw`] bytes.
pub trait Payload: Sized + Send + 'static {
    /// Its encoded length in bytes.
    fn length(&self) -> usize;
    /// Writes exactly [`Payload::length`] bytes.
    fn write(&self, out: &mut BytesMut);
    /// The encoded bytes, when they are already there.
    fn as_bytes(&self) -> Option<&Bytes> {
        None
    }
    /// Reads it back.
    ///
    /// # Errors
    /// A sentence on what is wrong with the bytes.
    fn read(bytes: Bytes) -> Result<Self, String>;
}

impl<M: prost::Message + Default + 'static> Payload for M {
    fn length(&self) -> usize {
        self.encoded_len()
    }
    fn write(&self, out: &mut BytesMut) {
        self.encode(out).expect("the buffer grows as needed");
    }
    fn read(bytes: Bytes) -> Result<Self, String> {
        M::decode(bytes).map_err(|error| error.to_string())
    }
}

/// Bytes as they are, for applications with an encoding of their own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Raw(pub Bytes);

impl Payload for Raw {
    #[inline]
    fn length(&self) -> usize {
        self.0.len()
    }
    #[inline]
    fn write(&self, out: &mut BytesMut) {
        out.extend_from_slice(&self.0);
    }
    #[inline]
    fn as_bytes(&self) -> Option<&Bytes> {
        Some(&self.0)
    }
    #[inline]
    fn read(bytes: Bytes) -> Result<Self, String> {
        Ok(Self(bytes))
    }
}

/// The encoded bytes of a payload, to be shared by several peers.
pub(crate) fn encoded(payload: &impl Payload) -> Bytes {
    match payload.as_bytes() {
        Some(bytes) => bytes.clone(),
        None => {
            let mut out = BytesMut::with_capacity(payload.length());
            payload.write(&mut out);
            out.freeze()
        }
    }
}
