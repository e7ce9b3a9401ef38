//! The data representations of 1.5: integers, strings, binary data, variable byte integers.
//!
//! [`Reader`] walks a frame whose length is already known and bounded, so nothing here can
//! allocate more than the frame holds.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::CodecError;
use super::packet::PacketType;

/// The largest value of a variable byte integer.
pub const MAX_VARINT: usize = 268_435_455;

/// Reads a variable byte integer from the start of `bytes`: `None` if it is not all there,
/// else its value and how many bytes it took.
pub fn varint(bytes: &[u8]) -> Result<Option<(u32, usize)>, CodecError> {
    let mut value = 0u32;
    for (i, &byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            if i > 0 && byte == 0 {
                return Err(CodecError::LengthNotMinimal);
            }
            return Ok(Some((value, i + 1)));
        }
    }
    if bytes.len() >= 4 {
        return Err(CodecError::LengthTooLong);
    }
    Ok(None)
}

pub(super) struct Reader {
    packet: PacketType,
    bytes: Bytes,
}

impl Reader {
    pub(super) fn new(packet: PacketType, bytes: Bytes) -> Self {
        Self { packet, bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The packet this reads, for messages.
    pub(super) fn packet(&self) -> PacketType {
        self.packet
    }

    fn need(&self, count: usize, field: &'static str) -> Result<(), CodecError> {
        if self.bytes.len() < count {
            return Err(CodecError::Short {
                packet: self.packet,
                field,
            });
        }
        Ok(())
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, CodecError> {
        self.need(1, field)?;
        Ok(self.bytes.get_u8())
    }

    pub(super) fn u16(&mut self, field: &'static str) -> Result<u16, CodecError> {
        self.need(2, field)?;
        Ok(self.bytes.get_u16())
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, CodecError> {
        self.need(4, field)?;
        Ok(self.bytes.get_u32())
    }

    pub(super) fn varint(&mut self, field: &'static str) -> Result<u32, CodecError> {
        let Some((value, used)) = varint(&self.bytes)? else {
            return Err(CodecError::Short {
                packet: self.packet,
                field,
            });
        };
        self.bytes.advance(used);
        Ok(value)
    }

    /// Length-prefixed bytes, shared with the frame.
    pub(super) fn binary(&mut self, field: &'static str) -> Result<Bytes, CodecError> {
        let length = usize::from(self.u16(field)?);
        self.need(length, field)?;
        Ok(self.bytes.split_to(length))
    }

    /// A UTF-8 string without U+0000 (1.5.4).
    pub(super) fn text(&mut self, field: &'static str) -> Result<String, CodecError> {
        let bytes = self.binary(field)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| CodecError::NotUtf8 { field })?;
        if text.contains('\0') {
            return Err(CodecError::Nul { field });
        }
        Ok(text.to_owned())
    }

    /// A packet identifier, which is never 0 (2.2.1).
    pub(super) fn packet_id(&mut self) -> Result<u16, CodecError> {
        match self.u16("the packet identifier")? {
            0 => Err(CodecError::PacketIdZero(self.packet)),
            id => Ok(id),
        }
    }

    /// The next `length` bytes as a reader of their own.
    pub(super) fn sub(&mut self, length: usize, field: &'static str) -> Result<Self, CodecError> {
        self.need(length, field)?;
        Ok(Self::new(self.packet, self.bytes.split_to(length)))
    }

    /// All that is left.
    pub(super) fn rest(&mut self) -> Bytes {
        self.bytes.split_off(0)
    }

    pub(super) fn end(self) -> Result<(), CodecError> {
        match self.bytes.len() {
            0 => Ok(()),
            count => Err(CodecError::Trailing {
                packet: self.packet,
                count,
            }),
        }
    }
}

pub(super) fn put_varint(out: &mut BytesMut, value: usize) -> Result<(), CodecError> {
    if value > MAX_VARINT {
        return Err(CodecError::TooLarge {
            size: value,
            max: MAX_VARINT,
        });
    }
    let mut rest = value;
    loop {
        let byte = (rest & 0x7f) as u8;
        rest >>= 7;
        if rest == 0 {
            out.put_u8(byte);
            return Ok(());
        }
        out.put_u8(byte | 0x80);
    }
}

pub(super) fn put_binary(
    out: &mut BytesMut,
    field: &'static str,
    bytes: &[u8],
) -> Result<(), CodecError> {
    let length = u16::try_from(bytes.len()).map_err(|_| CodecError::FieldTooLong {
        field,
        size: bytes.len(),
    })?;
    out.put_u16(length);
    out.put_slice(bytes);
    Ok(())
}
