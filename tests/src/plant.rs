//! Modbus TCP devices inside the test's own process: any number of units behind one port, with the
//! time of every write. Small, so that a thousand polled devices cost the figures next to nothing;
//! pymodbus (see [`crate::field`]) is what the stories are told with.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const ILLEGAL_FUNCTION: u8 = 1;
const ILLEGAL_VALUE: u8 = 3;

/// One write of a register that came over the line.
#[derive(Debug, Clone, Copy)]
pub struct Write {
    /// Unit (`slaveID`).
    pub unit: u8,
    /// Register.
    pub address: u16,
    /// What was written.
    pub value: u16,
    /// When.
    pub at: Instant,
}

#[derive(Default)]
struct Cells {
    values: HashMap<(u8, u16), u16>,
    writes: Vec<Write>,
}

#[derive(Default)]
struct Shared {
    cells: Mutex<Cells>,
    written: Condvar,
    reads: AtomicU64,
    ended: AtomicBool,
}

impl Shared {
    fn cells(&self) -> MutexGuard<'_, Cells> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Devices behind one port. Holding and input registers are the same cells; unset ones are 0.
pub struct Plant {
    /// Where they answer, on loopback.
    pub port: u16,
    shared: Arc<Shared>,
}

impl Plant {
    /// Starts to answer on a free port.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let port = listener
            .local_addr()
            .expect("a listener has an address")
            .port();
        let shared = Arc::new(Shared::default());
        let state = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if state.ended.load(Relaxed) {
                    return;
                }
                let state = state.clone();
                // An ended connection is no failure: the mapper is killed on purpose.
                std::thread::spawn(move || drop(serve(stream, &state)));
            }
        });
        Self { port, shared }
    }

    /// A register.
    pub fn get(&self, unit: u8, address: u16) -> u16 {
        self.shared
            .cells()
            .values
            .get(&(unit, address))
            .copied()
            .unwrap_or(0)
    }

    /// Changes a register at the device itself.
    pub fn set(&self, unit: u8, address: u16, value: u16) {
        self.shared.cells().values.insert((unit, address), value);
    }

    /// Every write so far, oldest first.
    pub fn writes(&self) -> Vec<Write> {
        self.shared.cells().writes.clone()
    }

    /// How many questions came.
    pub fn reads(&self) -> u64 {
        self.shared.reads.load(Relaxed)
    }

    /// Waits for a write of this value since `since`; None = not within `wait`.
    pub fn written(
        &self,
        unit: u8,
        address: u16,
        value: u16,
        since: Instant,
        wait: Duration,
    ) -> Option<Instant> {
        let end = Instant::now() + wait;
        let mut cells = self.shared.cells();
        loop {
            let fits = |w: &&Write| {
                w.at >= since && (w.unit, w.address, w.value) == (unit, address, value)
            };
            if let Some(write) = cells.writes.iter().rev().take(50).find(fits) {
                return Some(write.at);
            }
            let left = end.checked_duration_since(Instant::now())?;
            cells = self
                .shared
                .written
                .wait_timeout(cells, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

impl Drop for Plant {
    fn drop(&mut self) {
        self.shared.ended.store(true, Relaxed);
        // Wakes the listener; refused if it is gone already.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

/// Answers one connection until either end goes.
fn serve(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    loop {
        let mut head = [0; 8];
        match stream.read(&mut head[..1]) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if shared.ended.load(Relaxed) {
                    return Ok(());
                }
                continue;
            }
            Err(e) => return Err(e),
        }
        stream.read_exact(&mut head[1..])?;
        let [_, _, _, _, long, short, unit, function] = head;
        let length = usize::from(u16::from_be_bytes([long, short]));
        let mut rest = vec![0; length.clamp(2, 254) - 2];
        stream.read_exact(&mut rest)?;
        let mut answer = match pdu(shared, unit, function, &rest) {
            Ok(data) => [&[function], data.as_slice()].concat(),
            Err(code) => vec![function | 0x80, code],
        };
        let length = u16::try_from(answer.len() + 1)
            .unwrap_or(u16::MAX)
            .to_be_bytes();
        let mut frame = vec![head[0], head[1], 0, 0, length[0], length[1], unit];
        frame.append(&mut answer);
        stream.write_all(&frame)?;
    }
}

/// The answer without its function code, or an exception.
fn pdu(shared: &Shared, unit: u8, function: u8, data: &[u8]) -> Result<Vec<u8>, u8> {
    let word = |i: usize| {
        data.get(i..i + 2)
            .map(|b| u16::from_be_bytes([b[0], b[1]]))
            .ok_or(ILLEGAL_VALUE)
    };
    match function {
        3 | 4 => {
            let (first, count) = (word(0)?, word(2)?);
            if !(1..=125).contains(&count) {
                return Err(ILLEGAL_VALUE);
            }
            shared.reads.fetch_add(1, Relaxed);
            let cells = shared.cells();
            let cell = |i| {
                cells
                    .values
                    .get(&(unit, first.wrapping_add(i)))
                    .copied()
                    .unwrap_or(0)
                    .to_be_bytes()
            };
            let mut out = vec![u8::try_from(count * 2).unwrap_or(250)];
            out.extend((0..count).flat_map(cell));
            Ok(out)
        }
        6 => {
            write(shared, unit, word(0)?, &[word(2)?]);
            Ok(data.to_vec())
        }
        16 => {
            let (first, count) = (word(0)?, word(2)?);
            let values: Vec<u16> = (0..usize::from(count))
                .map(|i| word(5 + 2 * i))
                .collect::<Result<_, _>>()?;
            write(shared, unit, first, &values);
            Ok(data[..4].to_vec())
        }
        _ => Err(ILLEGAL_FUNCTION),
    }
}

fn write(shared: &Shared, unit: u8, first: u16, values: &[u16]) {
    let at = Instant::now();
    let mut cells = shared.cells();
    for (address, value) in (first..).zip(values) {
        cells.values.insert((unit, address), *value);
        cells.writes.push(Write {
            unit,
            address,
            value: *value,
            at,
        });
    }
    shared.written.notify_all();
}
