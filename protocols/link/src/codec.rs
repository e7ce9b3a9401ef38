//! Frames to bytes and back.
//!
//! ```text
//! message = version:u8 (1)  frame*                    one WebSocket binary message
//! frame   = length:u32  type:u8  flags:u8  fields     length counts what follows it; numbers are big-endian
//! text    = length:u32  UTF-8                         bytes = length:u32  octets
//! flags   = bit 0: the fields are zstd-compressed     (reserved: refused until it is negotiated)
//! ```
//! Every length is compared with its limit and with what is left of the message before anything is allocated.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::frame::limits;
use crate::{Code, Digest, Entry, Frame, Hash, Hello, Kind, KindError, Put};

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 6;

/// Why bytes are no frames.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CodecError {
    #[error("message of {0} bytes, allowed are {max}", max = limits::MESSAGE_BYTES)]
    Message(usize),
    #[error("message version {0}, this end speaks {VERSION}")]
    Version(u8),
    #[error("frame type {0} is unknown")]
    Type(u8),
    #[error("frame flags {0:#04x} are not supported")]
    Flags(u8),
    #[error("{field}: {size}, allowed are {allowed}")]
    Limit {
        field: &'static str,
        size: usize,
        allowed: usize,
    },
    #[error("the message ends inside {0}")]
    Short(&'static str),
    #[error("{0} bytes too many at the end of a frame")]
    Long(usize),
    #[error("{0} is not UTF-8")]
    Text(&'static str),
    #[error(transparent)]
    Kind(#[from] KindError),
}

/// Several frames as one message. Frames that do not fit are not taken: the caller packs by [`encode`].
pub fn encode_message(frames: &[Frame]) -> Result<Bytes, CodecError> {
    let mut out = BytesMut::new();
    for frame in frames {
        encode(frame, &mut out)?;
    }
    Ok(out.freeze())
}

/// Appends a frame to a message under construction; an empty buffer becomes a message. On an error the buffer
/// is as before.
pub fn encode(frame: &Frame, out: &mut BytesMut) -> Result<(), CodecError> {
    let before = out.len();
    if out.is_empty() {
        out.put_u8(VERSION);
    }
    let start = out.len();
    out.put_u32(0);
    let result = write_frame(frame, out).and_then(|()| {
        let size = out.len() - start - 4;
        limit("frame bytes", size, limits::FRAME_BYTES)?;
        limit("message bytes", out.len(), limits::MESSAGE_BYTES)?;
        u32::try_from(size).map_err(|_| CodecError::Message(size))
    });
    match result {
        Ok(size) => {
            out[start..start + 4].copy_from_slice(&size.to_be_bytes());
            Ok(())
        }
        Err(error) => {
            out.truncate(before);
            Err(error)
        }
    }
}

/// All frames of a message.
pub fn decode(message: Bytes) -> Result<Vec<Frame>, CodecError> {
    Frames::new(message)?.collect()
}

/// The frames of a message, one by one; bodies are slices of the message.
#[derive(Debug)]
pub struct Frames {
    rest: Bytes,
}

impl Frames {
    pub fn new(mut message: Bytes) -> Result<Frames, CodecError> {
        if message.len() > limits::MESSAGE_BYTES {
            return Err(CodecError::Message(message.len()));
        }
        if message.is_empty() {
            return Err(CodecError::Short("the version"));
        }
        match message.get_u8() {
            VERSION => Ok(Frames { rest: message }),
            other => Err(CodecError::Version(other)),
        }
    }

    fn next_frame(&mut self) -> Result<Frame, CodecError> {
        if self.rest.len() < HEAD_BYTES {
            return Err(CodecError::Short("the head of a frame"));
        }
        let size = self.rest.get_u32() as usize;
        limit("frame bytes", size, limits::FRAME_BYTES)?;
        if size < 2 || size > self.rest.len() {
            return Err(CodecError::Short("a frame"));
        }
        let mut fields = Fields(self.rest.split_to(size));
        let kind = fields.u8("the type")?;
        let flags = fields.u8("the flags")?;
        if flags != 0 {
            return Err(CodecError::Flags(flags));
        }
        let frame = read_frame(kind, &mut fields)?;
        if !fields.0.is_empty() {
            return Err(CodecError::Long(fields.0.len()));
        }
        Ok(frame)
    }
}

impl Iterator for Frames {
    type Item = Result<Frame, CodecError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let frame = self.next_frame();
        if frame.is_err() {
            self.rest.clear();
        }
        Some(frame)
    }
}

fn limit(field: &'static str, size: usize, allowed: usize) -> Result<(), CodecError> {
    if size > allowed {
        Err(CodecError::Limit {
            field,
            size,
            allowed,
        })
    } else {
        Ok(())
    }
}

struct Fields(Bytes);

impl Fields {
    fn need(&self, bytes: usize, field: &'static str) -> Result<(), CodecError> {
        if self.0.len() < bytes {
            Err(CodecError::Short(field))
        } else {
            Ok(())
        }
    }

    fn u8(&mut self, field: &'static str) -> Result<u8, CodecError> {
        self.need(1, field)?;
        Ok(self.0.get_u8())
    }

    fn bool(&mut self, field: &'static str) -> Result<bool, CodecError> {
        Ok(self.u8(field)? != 0)
    }

    fn u16(&mut self, field: &'static str) -> Result<u16, CodecError> {
        self.need(2, field)?;
        Ok(self.0.get_u16())
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, CodecError> {
        self.need(4, field)?;
        Ok(self.0.get_u32())
    }

    fn u64(&mut self, field: &'static str) -> Result<u64, CodecError> {
        self.need(8, field)?;
        Ok(self.0.get_u64())
    }

    fn bytes(&mut self, field: &'static str, allowed: usize) -> Result<Bytes, CodecError> {
        let size = self.u32(field)? as usize;
        limit(field, size, allowed)?;
        self.need(size, field)?;
        Ok(self.0.split_to(size))
    }

    fn text(&mut self, field: &'static str, allowed: usize) -> Result<String, CodecError> {
        let bytes = self.bytes(field, allowed)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| CodecError::Text(field))?;
        Ok(text.to_owned())
    }

    fn kind(&mut self) -> Result<Kind, CodecError> {
        Ok(Kind::new(&self.text("kind", limits::KIND_BYTES)?)?)
    }

    fn topic(&mut self) -> Result<String, CodecError> {
        self.text("topic", limits::TOPIC_BYTES)
    }

    fn uid(&mut self) -> Result<String, CodecError> {
        self.text("uid", limits::UID_BYTES)
    }

    fn hash(&mut self) -> Result<Hash, CodecError> {
        self.need(32, "hash")?;
        let mut hash = [0; 32];
        self.0.copy_to_slice(&mut hash);
        Ok(Hash(hash))
    }

    fn digest(&mut self) -> Result<Digest, CodecError> {
        let mut sum = [0; 4];
        for word in &mut sum {
            *word = self.u64("digest")?;
        }
        Ok(Digest {
            sum,
            count: self.u64("digest")?,
        })
    }

    fn count(&mut self, field: &'static str, allowed: usize) -> Result<usize, CodecError> {
        let count = self.u32(field)? as usize;
        limit(field, count, allowed)?;
        Ok(count)
    }
}

fn put_bytes(
    out: &mut BytesMut,
    field: &'static str,
    bytes: &[u8],
    allowed: usize,
) -> Result<(), CodecError> {
    limit(field, bytes.len(), allowed)?;
    let size = u32::try_from(bytes.len()).map_err(|_| CodecError::Message(bytes.len()))?;
    out.put_u32(size);
    out.put_slice(bytes);
    Ok(())
}

fn put_text(
    out: &mut BytesMut,
    field: &'static str,
    text: &str,
    allowed: usize,
) -> Result<(), CodecError> {
    put_bytes(out, field, text.as_bytes(), allowed)
}

/// Reasons are for people: one that is too long is cut, not refused.
fn put_why(out: &mut BytesMut, why: &str) -> Result<(), CodecError> {
    let mut end = why.len().min(limits::TEXT_BYTES);
    while !why.is_char_boundary(end) {
        end -= 1;
    }
    put_text(out, "why", &why[..end], limits::TEXT_BYTES)
}

fn put_kind(out: &mut BytesMut, kind: &Kind) -> Result<(), CodecError> {
    put_text(out, "kind", kind.as_str(), limits::KIND_BYTES)
}

fn put_digest(out: &mut BytesMut, digest: &Digest) {
    for word in digest.sum {
        out.put_u64(word);
    }
    out.put_u64(digest.count);
}

fn put_count(
    out: &mut BytesMut,
    field: &'static str,
    count: usize,
    allowed: usize,
) -> Result<(), CodecError> {
    limit(field, count, allowed)?;
    out.put_u32(u32::try_from(count).map_err(|_| CodecError::Message(count))?);
    Ok(())
}

fn head(out: &mut BytesMut, kind: u8) {
    out.put_u8(kind);
    out.put_u8(0);
}

fn write_frame(frame: &Frame, out: &mut BytesMut) -> Result<(), CodecError> {
    match frame {
        Frame::Hello(hello) => {
            head(out, 1);
            out.put_u16(hello.proto);
            put_text(out, "node", &hello.node, limits::TEXT_BYTES)?;
            put_text(out, "store_id", &hello.store_id, limits::TEXT_BYTES)?;
            put_text(out, "cluster_id", &hello.cluster_id, limits::TEXT_BYTES)?;
            put_text(out, "version", &hello.version, limits::TEXT_BYTES)?;
            out.put_u8(u8::from(hello.zstd));
            put_count(out, "digests", hello.have.len(), limits::HAVE_ITEMS)?;
            for (kind, digest) in &hello.have {
                put_kind(out, kind)?;
                put_digest(out, digest);
            }
        }
        Frame::Bye { code, why } => {
            head(out, 2);
            out.put_u16(code.0);
            put_why(out, why)?;
        }
        Frame::Put(put) => {
            head(out, 3);
            out.put_u64(put.seq);
            put_kind(out, &put.kind)?;
            put_text(out, "topic", &put.topic, limits::TOPIC_BYTES)?;
            put_text(out, "uid", &put.uid, limits::UID_BYTES)?;
            out.put_slice(&put.hash.0);
            put_bytes(out, "body", &put.body, limits::FRAME_BYTES)?;
        }
        Frame::Del {
            seq,
            kind,
            topic,
            uid,
        } => {
            head(out, 4);
            out.put_u64(*seq);
            put_kind(out, kind)?;
            put_text(out, "topic", topic, limits::TOPIC_BYTES)?;
            put_text(out, "uid", uid, limits::UID_BYTES)?;
        }
        Frame::Ack { seq } => {
            head(out, 5);
            out.put_u64(*seq);
        }
        Frame::Nack {
            seq,
            code,
            why,
            permanent,
        } => {
            head(out, 6);
            out.put_u64(*seq);
            out.put_u16(code.0);
            put_why(out, why)?;
            out.put_u8(u8::from(*permanent));
        }
        Frame::Manifest {
            kind,
            part,
            complete,
            last,
            entries,
        } => {
            head(out, 7);
            put_kind(out, kind)?;
            out.put_u32(*part);
            out.put_u8(u8::from(*complete));
            out.put_u8(u8::from(*last));
            put_count(out, "entries", entries.len(), limits::LIST_ITEMS)?;
            for entry in entries {
                put_text(out, "topic", &entry.topic, limits::TOPIC_BYTES)?;
                put_text(out, "uid", &entry.uid, limits::UID_BYTES)?;
                out.put_slice(&entry.hash.0);
            }
        }
        Frame::Want { kind, last, topics } => {
            head(out, 8);
            put_kind(out, kind)?;
            out.put_u8(u8::from(*last));
            put_count(out, "topics", topics.len(), limits::LIST_ITEMS)?;
            for topic in topics {
                put_text(out, "topic", topic, limits::TOPIC_BYTES)?;
            }
        }
        Frame::Same { kind, digest } | Frame::Have { kind, digest } => {
            head(
                out,
                if matches!(frame, Frame::Same { .. }) {
                    9
                } else {
                    10
                },
            );
            put_kind(out, kind)?;
            put_digest(out, digest);
        }
        Frame::Ping { at_ms } | Frame::Pong { at_ms } => {
            head(
                out,
                if matches!(frame, Frame::Ping { .. }) {
                    11
                } else {
                    12
                },
            );
            out.put_u64(*at_ms);
        }
        Frame::Renew { seq, csr_pem } => {
            head(out, 13);
            out.put_u64(*seq);
            put_text(out, "certificate request", csr_pem, limits::PEM_BYTES)?;
        }
        Frame::Renewed {
            seq,
            cert_pem,
            ca_pem,
        } => {
            head(out, 14);
            out.put_u64(*seq);
            put_text(out, "certificate", cert_pem, limits::PEM_BYTES)?;
            put_text(out, "CA certificate", ca_pem, limits::PEM_BYTES)?;
        }
        Frame::Open { stream, head: body } => {
            head(out, 15);
            out.put_u32(*stream);
            put_bytes(out, "stream head", body, limits::PEM_BYTES)?;
        }
        Frame::Data { stream, body } => {
            head(out, 16);
            out.put_u32(*stream);
            put_bytes(out, "stream data", body, limits::FRAME_BYTES)?;
        }
        Frame::Credit { stream, bytes } => {
            head(out, 17);
            out.put_u32(*stream);
            out.put_u32(*bytes);
        }
        Frame::Close { stream, code, why } => {
            head(out, 18);
            out.put_u32(*stream);
            out.put_u16(code.0);
            put_why(out, why)?;
        }
    }
    Ok(())
}

fn read_frame(kind: u8, f: &mut Fields) -> Result<Frame, CodecError> {
    Ok(match kind {
        1 => {
            let proto = f.u16("proto")?;
            let node = f.text("node", limits::TEXT_BYTES)?;
            let store_id = f.text("store_id", limits::TEXT_BYTES)?;
            let cluster_id = f.text("cluster_id", limits::TEXT_BYTES)?;
            let version = f.text("version", limits::TEXT_BYTES)?;
            let zstd = f.bool("zstd")?;
            let mut have = BTreeMap::new();
            for _ in 0..f.count("digests", limits::HAVE_ITEMS)? {
                have.insert(f.kind()?, f.digest()?);
            }
            Frame::Hello(Hello {
                proto,
                node,
                store_id,
                cluster_id,
                version,
                zstd,
                have,
            })
        }
        2 => Frame::Bye {
            code: Code(f.u16("code")?),
            why: f.text("why", limits::TEXT_BYTES)?,
        },
        3 => Frame::Put(Put {
            seq: f.u64("seq")?,
            kind: f.kind()?,
            topic: f.topic()?,
            uid: f.uid()?,
            hash: f.hash()?,
            body: f.bytes("body", limits::FRAME_BYTES)?,
        }),
        4 => Frame::Del {
            seq: f.u64("seq")?,
            kind: f.kind()?,
            topic: f.topic()?,
            uid: f.uid()?,
        },
        5 => Frame::Ack { seq: f.u64("seq")? },
        6 => Frame::Nack {
            seq: f.u64("seq")?,
            code: Code(f.u16("code")?),
            why: f.text("why", limits::TEXT_BYTES)?,
            permanent: f.bool("permanent")?,
        },
        7 => {
            let kind = f.kind()?;
            let part = f.u32("part")?;
            let (complete, last) = (f.bool("complete")?, f.bool("last")?);
            let count = f.count("entries", limits::LIST_ITEMS)?;
            let mut entries = Vec::new();
            for _ in 0..count {
                entries.push(Entry {
                    topic: f.topic()?,
                    uid: f.uid()?,
                    hash: f.hash()?,
                });
            }
            Frame::Manifest {
                kind,
                part,
                complete,
                last,
                entries,
            }
        }
        8 => {
            let kind = f.kind()?;
            let last = f.bool("last")?;
            let count = f.count("topics", limits::LIST_ITEMS)?;
            let mut topics = Vec::new();
            for _ in 0..count {
                topics.push(f.topic()?);
            }
            Frame::Want { kind, last, topics }
        }
        9 => Frame::Same {
            kind: f.kind()?,
            digest: f.digest()?,
        },
        10 => Frame::Have {
            kind: f.kind()?,
            digest: f.digest()?,
        },
        11 => Frame::Ping {
            at_ms: f.u64("at_ms")?,
        },
        12 => Frame::Pong {
            at_ms: f.u64("at_ms")?,
        },
        13 => Frame::Renew {
            seq: f.u64("seq")?,
            csr_pem: f.text("certificate request", limits::PEM_BYTES)?,
        },
        14 => Frame::Renewed {
            seq: f.u64("seq")?,
            cert_pem: f.text("certificate", limits::PEM_BYTES)?,
            ca_pem: f.text("CA certificate", limits::PEM_BYTES)?,
        },
        15 => Frame::Open {
            stream: f.u32("stream")?,
            head: f.bytes("stream head", limits::PEM_BYTES)?,
        },
        16 => Frame::Data {
            stream: f.u32("stream")?,
            body: f.bytes("stream data", limits::FRAME_BYTES)?,
        },
        17 => Frame::Credit {
            stream: f.u32("stream")?,
            bytes: f.u32("credit")?,
        },
        18 => Frame::Close {
            stream: f.u32("stream")?,
            code: Code(f.u16("code")?),
            why: f.text("why", limits::TEXT_BYTES)?,
        },
        other => return Err(CodecError::Type(other)),
    })
}
