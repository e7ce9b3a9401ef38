//! A TCP proxy that counts bytes, and cuts.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Default)]
struct Shared {
    target: AtomicU16,
    connections: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
}

/// A running proxy; it lives as long as the process.
pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
}

/// What has passed so far.
#[derive(Clone, Copy)]
pub struct Count {
    pub connections: u64,
    /// Bytes from the edge.
    pub up: u64,
    /// Bytes to the edge.
    pub down: u64,
}

impl Proxy {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let port = listener
            .local_addr()
            .expect("a listener has an address")
            .port();
        let shared = Arc::new(Shared::default());
        let state = shared.clone();
        std::thread::spawn(move || {
            for edge in listener.incoming().map_while(Result::ok) {
                // Without the other end the edge sees a closed connection, as it should.
                drop(join(edge, &state));
            }
        });
        Self { port, shared }
    }

    /// Where connections go from now on.
    pub fn to(&self, port: u16) {
        self.shared.target.store(port, Relaxed);
    }

    /// Ends every connection.
    pub fn cut(&self) {
        let mut open = self
            .shared
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        open.drain(..)
            .for_each(|s| drop(s.shutdown(Shutdown::Both)));
    }

    pub fn count(&self) -> Count {
        let s = &self.shared;
        Count {
            connections: s.connections.load(Relaxed),
            up: s.up.load(Relaxed),
            down: s.down.load(Relaxed),
        }
    }
}

fn join(edge: TcpStream, shared: &Arc<Shared>) -> std::io::Result<()> {
    let cloud = TcpStream::connect(("127.0.0.1", shared.target.load(Relaxed)))?;
    for stream in [&edge, &cloud] {
        stream.set_nodelay(true)?;
    }
    let mut open = shared.open.lock().unwrap_or_else(PoisonError::into_inner);
    open.extend([edge.try_clone()?, cloud.try_clone()?]);
    shared.connections.fetch_add(1, Relaxed);
    let ends = [
        (edge.try_clone()?, cloud.try_clone()?, true),
        (cloud, edge, false),
    ];
    for (from, to, up) in ends {
        let shared = shared.clone();
        std::thread::spawn(move || pump(from, to, if up { &shared.up } else { &shared.down }));
    }
    Ok(())
}

fn pump(mut from: TcpStream, mut to: TcpStream, count: &AtomicU64) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(n) if n > 0 && to.write_all(&buffer[..n]).is_ok() => {
                count.fetch_add(n as u64, Relaxed);
            }
            _ => {
                drop(from.shutdown(Shutdown::Both));
                drop(to.shutdown(Shutdown::Both));
                return;
            }
        }
    }
}
