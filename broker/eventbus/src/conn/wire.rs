//! Bytes of one connection: buffered packets in, encoded packets out. Both buffers are empty and
//! small while nothing happens, because a gateway has many idle clients.

use std::io;

use bytes::BytesMut;
use edgebus_bus::limits;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::codec::{self, CodecError, Packet, Version};

/// A buffer that has grown beyond this is given back once it is empty.
const KEEP: usize = 16 * 1024;
/// What one read takes: little from a client that says little.
const READ: usize = 2 * 1024;
const READ_MAX: usize = 64 * 1024;

/// The reading half.
pub struct Input {
    stream: Box<dyn AsyncRead + Send + Unpin>,
    buffer: BytesMut,
    read: usize,
    /// The peer has said all.
    pub ended: bool,
}

/// The writing half.
pub struct Output {
    stream: Box<dyn AsyncWrite + Send + Unpin>,
    buffer: BytesMut,
    pub version: Version,
    /// Largest packet that the client takes.
    pub max_packet: usize,
}

impl Input {
    pub fn new(stream: Box<dyn AsyncRead + Send + Unpin>) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            read: READ,
            ended: false,
        }
    }

    /// Reads what is there. Cancel-safe.
    pub async fn read(&mut self) -> io::Result<usize> {
        if self.buffer.is_empty() && self.buffer.capacity() > KEEP {
            self.buffer = BytesMut::new();
        }
        self.buffer.reserve(self.read);
        let count = self.stream.read_buf(&mut self.buffer).await?;
        self.read = if count >= self.read {
            READ_MAX.min(self.read * 2)
        } else {
            READ
        };
        self.ended |= count == 0;
        Ok(count)
    }

    /// The next packet if it is here whole. `version` is unknown before CONNECT.
    pub fn packet(&mut self, version: Option<Version>) -> Result<Option<Packet>, CodecError> {
        // Nothing needs a large CONNECT: will payloads are bounded by 64 KiB anyway.
        let max = match version {
            None => 128 * 1024,
            Some(_) => limits::PACKET_BYTES,
        };
        let packet = codec::decode(&mut self.buffer, version, max)?;
        if let Some(packet) = &packet {
            packet.check_from_client()?;
        }
        Ok(packet)
    }
}

impl Output {
    pub fn new(stream: Box<dyn AsyncWrite + Send + Unpin>) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            version: Version::V4,
            max_packet: usize::MAX,
        }
    }

    /// Bytes that wait to be written.
    pub fn waiting(&self) -> usize {
        self.buffer.len()
    }

    /// Appends a packet. False if it is too large for the client, or cannot be encoded, which
    /// is a mistake of ours and reported.
    pub fn put(&mut self, packet: &Packet) -> bool {
        let before = self.buffer.len();
        if let Err(error) = codec::encode(packet, self.version, &mut self.buffer) {
            tracing::warn!(%error, kind = ?packet.packet_type(), "a packet cannot be encoded");
            return false;
        }
        if self.buffer.len() - before > self.max_packet {
            self.buffer.truncate(before);
            return false;
        }
        true
    }

    /// Writes some of what waits. Cancel-safe.
    pub async fn write(&mut self) -> io::Result<usize> {
        let count = self.stream.write_buf(&mut self.buffer).await?;
        if self.buffer.is_empty() && self.buffer.capacity() > KEEP {
            self.buffer = BytesMut::new();
        }
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(count)
    }

    /// Writes all that waits and ends the stream.
    pub async fn close(&mut self) -> io::Result<()> {
        while !self.buffer.is_empty() {
            self.write().await?;
        }
        self.stream.shutdown().await
    }
}
