//! A serial port that knows silence. Modbus RTU frames carry no transaction id, so bytes that were
//! on their way before a question was asked must never be read as its answer: whatever is in the
//! input is thrown away before each question, and the silence of 3.5 characters that the standard
//! puts between frames is kept (Modbus over Serial Line V1.02 §2.5.1.1).

use crate::config::{Link, Parity};
use edgebus_mapper_sdk::LineError;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::{fmt, io};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Duration, Instant, Sleep, sleep};
use tokio_serial::{DataBits, SerialPortBuilderExt, SerialStream, StopBits};

/// Opens the port of an RTU link.
pub fn open(link: &Link, quiet: Quiet) -> Result<Drain<SerialStream>, LineError> {
    let Link::Rtu {
        path,
        baud,
        data_bits,
        parity,
        stop_bits,
    } = link
    else {
        return Err(LineError::Lost("not a serial line".into()));
    };
    let port = tokio_serial::new(path, *baud)
        .data_bits(if *data_bits == 7 {
            DataBits::Seven
        } else {
            DataBits::Eight
        })
        .parity(match parity {
            Parity::None => tokio_serial::Parity::None,
            Parity::Even => tokio_serial::Parity::Even,
            Parity::Odd => tokio_serial::Parity::Odd,
        })
        .stop_bits(if *stop_bits == 2 {
            StopBits::Two
        } else {
            StopBits::One
        })
        .open_native_async()
        .map_err(|e| LineError::Lost(format!("cannot open {path}: {e}")))?;
    Ok(Drain::new(port, silence(*baud), quiet))
}

/// 3.5 characters of 11 bits, and a fixed 1.75 ms above 19200 baud (ibid.).
pub fn silence(baud: u32) -> Duration {
    if baud > 19_200 {
        Duration::from_micros(1_750)
    } else {
        Duration::from_micros(38_500_000 / u64::from(baud.max(1)))
    }
}

/// How long the line must have been silent before the next question, beyond the standard's silence:
/// set by whoever saw a question time out, used up by the next one.
#[derive(Debug, Clone, Default)]
pub struct Quiet(Arc<AtomicU64>);

impl Quiet {
    /// Asks for silence before the next question.
    pub fn ask(&self, time: Duration) {
        self.0.store(
            u64::try_from(time.as_micros()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
    }
    /// What the next question will wait.
    pub fn asked(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
    fn take(&self) -> Duration {
        Duration::from_micros(self.0.swap(0, Ordering::Relaxed))
    }
}

/// Empties the input and waits for silence before each question.
pub struct Drain<T> {
    port: T,
    silence: Duration,
    quiet: Quiet,
    /// What was asked for and not had yet.
    need: Duration,
    /// Between the start of a question and its first byte of answer.
    asking: bool,
    quiet_from: Instant,
    pause: Option<Pin<Box<Sleep>>>,
}

impl<T> fmt::Debug for Drain<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain")
            .field("silence", &self.silence)
            .finish_non_exhaustive()
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Drain<T> {
    /// Wraps a port.
    pub fn new(port: T, silence: Duration, quiet: Quiet) -> Self {
        Self {
            port,
            silence,
            quiet,
            need: Duration::ZERO,
            asking: false,
            quiet_from: Instant::now(),
            pause: None,
        }
    }

    /// Throws away what has come; true if there was anything.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut any = false;
        let mut space = [0u8; 256];
        loop {
            let mut buf = ReadBuf::new(&mut space);
            match Pin::new(&mut self.port).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if buf.filled().is_empty() => {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Poll::Ready(Ok(())) => any = true,
                Poll::Ready(Err(e)) => return Err(e),
                Poll::Pending => return Ok(any),
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Drain<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.asking = false;
        let polled = Pin::new(&mut self.port).poll_read(cx, buf);
        if polled.is_ready() {
            self.quiet_from = Instant::now();
        }
        polled
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Drain<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        // The first bytes of a question wait for silence; the rest of it follows at once.
        while !self.asking {
            let asked = self.quiet.take();
            if !asked.is_zero() {
                self.need = asked;
                self.quiet_from = Instant::now();
            }
            if self.poll_drain(cx)? {
                self.quiet_from = Instant::now();
            }
            let free = self.quiet_from + self.silence.max(self.need);
            if Instant::now() >= free {
                self.need = Duration::ZERO;
                self.asking = true;
                break;
            }
            let wait = free.saturating_duration_since(Instant::now());
            let pause = self.pause.insert(Box::pin(sleep(wait)));
            if pause.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
        Pin::new(&mut self.port).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.port).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.port).poll_shutdown(cx)
    }
}
