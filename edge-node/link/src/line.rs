//! An open connection: a task that writes what the loop hands it, a stream of what arrives.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use edgebus_linkproto::{CodecError, Session, encode};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_util::task::TaskTracker;

use crate::dial::Socket;

/// Messages that wait for the socket. More would only make old what is sent.
const WAITING: usize = 4;
/// Frames are packed into messages of about this size.
const MESSAGE_BYTES: usize = 32 << 10;
/// A socket that takes nothing for so long is dead.
const WRITE_TIME: Duration = Duration::from_secs(20);
const CLOSE_TIME: Duration = Duration::from_secs(1);

#[derive(Debug, Error)]
pub enum LineError {
    #[error("the connection broke: {0}")]
    Broken(#[from] tungstenite::Error),
    #[error("the cloud closed the connection")]
    Closed,
    #[error("the cloud sent a message that is not binary")]
    NotBinary,
}

/// See the module. Dropping it writes what was handed over and closes.
pub struct Line {
    out: mpsc::Sender<Bytes>,
    incoming: SplitStream<Socket>,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

impl Line {
    pub fn new(socket: Socket, tasks: &TaskTracker) -> Line {
        let (sink, incoming) = socket.split();
        let (out, messages) = mpsc::channel(WAITING);
        tasks.spawn(write(sink, messages));
        Line {
            out,
            incoming,
            bytes_in: 0,
            bytes_out: 0,
        }
    }

    /// The next message. Cancel-safe.
    pub async fn next(&mut self) -> Result<Bytes, LineError> {
        loop {
            match self.incoming.next().await {
                None | Some(Ok(Message::Close(_))) => return Err(LineError::Closed),
                Some(Err(error)) => return Err(error.into()),
                Some(Ok(Message::Binary(bytes))) => {
                    self.bytes_in += bytes.len() as u64;
                    return Ok(bytes);
                }
                Some(Ok(Message::Text(_))) => return Err(LineError::NotBinary),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            }
        }
    }

    /// Hands over what the session has to say, as far as the socket takes it. True: there may be more, see
    /// [`Line::next_or_room`].
    pub fn pump(&mut self, session: &mut Session, now_ms: u64) -> Result<bool, CodecError> {
        while let Ok(place) = self.out.try_reserve() {
            let mut message = BytesMut::new();
            while message.len() < MESSAGE_BYTES {
                let Some(frame) = session.next_frame(now_ms) else {
                    break;
                };
                encode(&frame, &mut message)?;
            }
            if message.is_empty() {
                return Ok(false);
            }
            self.bytes_out += message.len() as u64;
            place.send(message.freeze());
        }
        Ok(true)
    }

    /// The next message, or None as soon as the socket takes more (or its writer is gone, and then reading
    /// fails as well). Cancel-safe.
    pub async fn next_or_room(&mut self) -> Option<Result<Bytes, LineError>> {
        let out = self.out.clone();
        tokio::select! {
            message = self.next() => Some(message),
            room = out.reserve() => {
                drop(room);
                None
            }
        }
    }
}

async fn write(mut sink: SplitSink<Socket, Message>, mut messages: mpsc::Receiver<Bytes>) {
    while let Some(message) = messages.recv().await {
        match timeout(WRITE_TIME, sink.send(Message::Binary(message))).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(%error, "writing to the cloud");
                return;
            }
            Err(_) => {
                tracing::warn!("the cloud took nothing for {WRITE_TIME:?}");
                return;
            }
        }
    }
    // Saying goodbye is a courtesy: no harm if it fails.
    drop(timeout(CLOSE_TIME, sink.close()).await);
}
