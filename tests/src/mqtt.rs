//! A publisher that speaks MQTT 3.1.1 by itself: what it counts as acknowledged is exactly the
//! PUBACKs that it read, with no client library's opinion between.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A connected QoS 1 publisher.
pub struct Publisher {
    stream: Box<dyn Stream>,
    next: u16,
    in_flight: VecDeque<u16>,
    out: Vec<u8>,
}

impl Publisher {
    /// Over a unix socket, where the kernel says who we are.
    pub fn unix(path: &Path, client_id: &str) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_write_timeout(Some(Duration::from_secs(10)))?;
        Self::connect(Box::new(stream), client_id, None)
    }

    /// Over TCP, with a user name and password or without.
    pub fn tcp(port: u16, client_id: &str, user: Option<(&str, &str)>) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_write_timeout(Some(Duration::from_secs(10)))?;
        Self::connect(Box::new(stream), client_id, user)
    }

    fn connect(
        mut stream: Box<dyn Stream>,
        client_id: &str,
        user: Option<(&str, &str)>,
    ) -> io::Result<Self> {
        let flags = 0x02 | if user.is_some() { 0xC0 } else { 0 };
        let mut body = Vec::new();
        text(&mut body, "MQTT");
        body.extend([4, flags, 0, 60]);
        text(&mut body, client_id);
        if let Some((name, password)) = user {
            text(&mut body, name);
            text(&mut body, password);
        }
        let mut packet = Vec::new();
        frame(&mut packet, 0x10, &body);
        stream.write_all(&packet)?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer)?;
        match answer {
            [0x20, 2, _, 0] => Ok(Self {
                stream,
                next: 1,
                in_flight: VecDeque::new(),
                out: Vec::new(),
            }),
            other => Err(io::Error::new(
                ErrorKind::ConnectionRefused,
                format!("CONNACK {other:?}"),
            )),
        }
    }

    /// Queues a publish and says its packet id; [`flush`](Self::flush) sends it.
    pub fn publish(&mut self, topic: &str, payload: &[u8], retain: bool) -> u16 {
        let id = self.next;
        self.next = if id == u16::MAX { 1 } else { id + 1 };
        let mut body = Vec::with_capacity(topic.len() + payload.len() + 4);
        text(&mut body, topic);
        body.extend(id.to_be_bytes());
        body.extend(payload);
        frame(&mut self.out, 0x32 | u8::from(retain), &body);
        self.in_flight.push_back(id);
        id
    }

    /// Sends what is queued.
    pub fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// Publishes that nobody has acknowledged yet.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Waits for the next acknowledgement and says its packet id.
    pub fn acknowledged(&mut self) -> io::Result<u16> {
        let mut packet = [0; 4];
        self.stream.read_exact(&mut packet)?;
        let [0x40, 2, high, low] = packet else {
            return Err(io::Error::new(
                ErrorKind::InvalidData,
                format!("not a PUBACK: {packet:?}"),
            ));
        };
        let id = u16::from_be_bytes([high, low]);
        match self.in_flight.iter().position(|i| *i == id) {
            Some(at) => drop(self.in_flight.remove(at)),
            None => {
                return Err(io::Error::new(
                    ErrorKind::InvalidData,
                    format!("PUBACK {id} for nothing"),
                ));
            }
        }
        Ok(id)
    }
}

fn text(into: &mut Vec<u8>, text: &str) {
    into.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    into.extend(text.as_bytes());
}

fn frame(into: &mut Vec<u8>, first: u8, body: &[u8]) {
    into.push(first);
    let mut rest = body.len();
    loop {
        let digit = u8::try_from(rest % 128).unwrap_or(0);
        rest /= 128;
        into.push(digit | if rest > 0 { 0x80 } else { 0 });
        if rest == 0 {
            break;
        }
    }
    into.extend(body);
}
