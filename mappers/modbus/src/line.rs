//! One connection and the questions on it. Each has a deadline, and each answer is held against its
//! question: unit, function, length, and for writes what was written.
//!
//! **A late answer is never taken for another's.** On TCP any timeout or mismatch ends the
//! connection, so what comes late comes to nobody. RTU frames carry no transaction id; there, after
//! a timeout, the line first has to be silent for as long as the timeout, and then the device has to
//! answer a *challenge*: a question with a function code that no data question uses (07, Read
//! Exception Status; a refusal of it, 87, is as good). Devices answer in order, so once the
//! challenge is answered nothing older can still come. A device that ignores the challenge is
//! believed again after three of them and silence throughout.

use crate::batch::{Batch, batches};
use crate::config::{Dev, Link, Point, Table};
use crate::rtu::{self, Quiet};
use crate::value::{decode, encode};
use edgebus_mapper_sdk::{LineError, PointError};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Duration, Instant, sleep, timeout};
use tokio_modbus::client::{Client, Context, rtu as rtu_client, tcp};
use tokio_modbus::prelude::{ExceptionCode, Slave, SlaveContext};
use tokio_modbus::{Request, Response};

/// Challenges that a device may leave unanswered before silence alone is believed.
const CHALLENGES: u32 = 3;

/// An open connection.
pub struct Line {
    context: Context,
    /// Present on serial lines.
    serial: Option<Quiet>,
    /// Serial only: units that owe an answer, and how many challenges they have ignored.
    owing: BTreeMap<u8, u32>,
    last: Option<Instant>,
}

/// What a question came to.
enum Answer {
    Cells(Vec<u16>),
    Exception(ExceptionCode),
}

impl Line {
    /// Connects or opens the port.
    pub async fn open(dev: &Dev) -> Result<Self, LineError> {
        let wait = Duration::from_millis(dev.timeout_ms);
        let (context, serial) = match &dev.link {
            Link::Tcp { host, port } => {
                let connect = async {
                    let found: Vec<SocketAddr> =
                        lookup_host((host.as_str(), *port)).await?.collect();
                    TcpStream::connect(found.as_slice()).await
                };
                let stream = timeout(wait, connect)
                    .await
                    .map_err(|_| {
                        LineError::Lost(format!(
                            "{host}:{port} did not accept a connection within {} ms",
                            dev.timeout_ms
                        ))
                    })?
                    .map_err(|e| {
                        LineError::Lost(format!("cannot connect to {host}:{port}: {e}"))
                    })?;
                // Questions are one small packet each; waiting for more would only delay them.
                stream
                    .set_nodelay(true)
                    .map_err(|e| LineError::Lost(format!("{host}:{port}: {e}")))?;
                (tcp::attach_slave(stream, Slave(dev.slave)), None)
            }
            link @ Link::Rtu { .. } => {
                let quiet = Quiet::default();
                let port = rtu::open(link, quiet.clone())?;
                (
                    rtu_client::attach_slave(port, Slave(dev.slave)),
                    Some(quiet),
                )
            }
        };
        Ok(Self {
            context,
            serial,
            owing: BTreeMap::new(),
            last: None,
        })
    }

    /// A line over a transport that is already there: for tests.
    pub fn over<T>(transport: T, quiet: Quiet) -> Self
    where
        T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let port = rtu::Drain::new(transport, Duration::from_millis(2), quiet.clone());
        Self {
            context: rtu_client::attach(port),
            serial: Some(quiet),
            owing: BTreeMap::new(),
            last: None,
        }
    }

    /// Reads points: neighbours together; where a group is refused, one by one.
    pub async fn read(
        &mut self,
        dev: &Dev,
        points: &[&Point],
    ) -> Result<Vec<Result<Value, PointError>>, LineError> {
        let mut out: Vec<Option<Result<Value, PointError>>> = points.iter().map(|_| None).collect();
        for batch in batches(dev, points) {
            match self.cells(dev, &batch).await? {
                Answer::Cells(cells) => {
                    for i in &batch.points {
                        out[*i] = Some(part(&batch, points[*i], &cells));
                    }
                }
                Answer::Exception(code) if batch.points.len() == 1 => {
                    out[batch.points[0]] = Some(Err(exception(code)));
                }
                // One bad register must not cost its neighbours.
                Answer::Exception(_) => {
                    for i in &batch.points {
                        let (table, address, count) =
                            (points[*i].table, points[*i].address, points[*i].count);
                        let one = Batch {
                            table,
                            address,
                            count,
                            points: vec![*i],
                        };
                        out[*i] = Some(match self.cells(dev, &one).await? {
                            Answer::Cells(cells) => part(&one, points[*i], &cells),
                            Answer::Exception(code) => Err(exception(code)),
                        });
                    }
                }
            }
        }
        let unasked = || {
            Err(PointError::new(
                "deviceFailure",
                "no question covers this point",
            ))
        };
        Ok(out.into_iter().map(|v| v.unwrap_or_else(unasked)).collect())
    }

    /// Writes one point.
    pub async fn write(
        &mut self,
        dev: &Dev,
        point: &Point,
        value: &Value,
    ) -> Result<Result<(), PointError>, LineError> {
        let mut cells = match encode(point, value) {
            Ok(cells) => cells,
            Err(e) => return Ok(Err(e)),
        };
        if let (Some(bit), Table::Holding) = (point.bit, point.table) {
            // One bit of a register: read, change, write, with nobody in between on this line.
            let one = Batch {
                table: point.table,
                address: point.address,
                count: 1,
                points: vec![],
            };
            match self.cells(dev, &one).await? {
                Answer::Cells(now) => {
                    let now = now.first().copied().unwrap_or(0);
                    cells = vec![if cells[0] == 0 {
                        now & !(1 << bit)
                    } else {
                        now | 1 << bit
                    }];
                }
                Answer::Exception(code) => return Ok(Err(exception(code))),
            }
        }
        let request = match (point.table, cells.as_slice()) {
            (Table::Coil, [cell]) => Request::WriteSingleCoil(point.address, *cell != 0),
            (Table::Holding, [cell]) => Request::WriteSingleRegister(point.address, *cell),
            (Table::Holding, many) => {
                Request::WriteMultipleRegisters(point.address, Cow::Owned(many.to_vec()))
            }
            _ => {
                return Ok(Err(PointError::new(
                    "readOnly",
                    format!("a {:?} cannot be written", point.table),
                )));
            }
        };
        let done = match &request {
            Request::WriteSingleCoil(a, on) => Response::WriteSingleCoil(*a, *on),
            Request::WriteSingleRegister(a, word) => Response::WriteSingleRegister(*a, *word),
            _ => Response::WriteMultipleRegisters(point.address, point.count),
        };
        // Never repeated here: whether a write without an answer happened is decided by reading.
        match self.ask(dev, request, 0, |r| r == &done).await? {
            Ok(_) => Ok(Ok(())),
            Err(code) => Ok(Err(exception(code))),
        }
    }

    async fn cells(&mut self, dev: &Dev, batch: &Batch) -> Result<Answer, LineError> {
        let (address, count) = (batch.address, batch.count);
        let request = match batch.table {
            Table::Coil => Request::ReadCoils(address, count),
            Table::Discrete => Request::ReadDiscreteInputs(address, count),
            Table::Input => Request::ReadInputRegisters(address, count),
            Table::Holding => Request::ReadHoldingRegisters(address, count),
        };
        let whole = usize::from(count);
        let fits = move |response: &Response| match response {
            Response::ReadCoils(bits) | Response::ReadDiscreteInputs(bits) => {
                bits.len() >= whole && bits.len() < whole + 8
            }
            Response::ReadInputRegisters(words) | Response::ReadHoldingRegisters(words) => {
                words.len() == whole
            }
            _ => false,
        };
        Ok(match self.ask(dev, request, dev.retries, fits).await? {
            Ok(Response::ReadCoils(bits) | Response::ReadDiscreteInputs(bits)) => {
                Answer::Cells(bits.into_iter().take(whole).map(u16::from).collect())
            }
            Ok(Response::ReadInputRegisters(words) | Response::ReadHoldingRegisters(words)) => {
                Answer::Cells(words)
            }
            Ok(_) => return Err(LineError::Lost("an answer of another kind".into())),
            Err(code) => Answer::Exception(code),
        })
    }

    /// Asks, with repeats on a serial line; on TCP a failure ends the connection at once.
    async fn ask(
        &mut self,
        dev: &Dev,
        request: Request<'static>,
        retries: u32,
        fits: impl Fn(&Response) -> bool,
    ) -> Result<Result<Response, ExceptionCode>, LineError> {
        let mut left = retries;
        loop {
            let failed = match self.prove(dev).await {
                Ok(()) => match self.once(dev, request.clone(), &fits).await {
                    Ok(answer) => return Ok(answer),
                    Err(e) => e,
                },
                Err(e) => e,
            };
            if left == 0 || matches!(failed, LineError::Lost(_)) {
                return Err(failed);
            }
            left -= 1;
        }
    }

    /// Serial only: makes a unit that owes an answer prove that nothing older can still come.
    async fn prove(&mut self, dev: &Dev) -> Result<(), LineError> {
        let Some(ignored) = self.owing.get(&dev.slave).copied() else {
            return Ok(());
        };
        let challenge = Request::Custom(0x07, Cow::Borrowed(&[]));
        match self
            .once(dev, challenge, &|r| matches!(r, Response::Custom(0x07, _)))
            .await
        {
            Ok(_) => {
                self.owing.remove(&dev.slave);
                Ok(())
            }
            Err(LineError::Silent(_)) if ignored + 1 >= CHALLENGES => {
                // `once` has asked for silence again: what follows is asked of a quiet line.
                self.owing.remove(&dev.slave);
                Ok(())
            }
            Err(e) => {
                self.owing.insert(dev.slave, ignored + 1);
                Err(e)
            }
        }
    }

    async fn once(
        &mut self,
        dev: &Dev,
        request: Request<'static>,
        fits: &impl Fn(&Response) -> bool,
    ) -> Result<Result<Response, ExceptionCode>, LineError> {
        if let Some(last) = self.last {
            let rest = Duration::from_millis(dev.min_gap_ms).saturating_sub(last.elapsed());
            if !rest.is_zero() {
                sleep(rest).await;
            }
        }
        self.context.set_slave(Slave(dev.slave));
        let wait = Duration::from_millis(dev.timeout_ms);
        // On a serial line the wait for silence before the question is part of the call.
        let patience = self.serial.as_ref().map_or(wait, |quiet| {
            wait + quiet.asked() + Duration::from_millis(50)
        });
        let called = timeout(patience, self.context.call(request)).await;
        self.last = Some(Instant::now());
        let why = match called {
            Ok(Ok(Ok(response))) if fits(&response) => return Ok(Ok(response)),
            Ok(Ok(Err(code))) => return Ok(Err(code)),
            Ok(Ok(Ok(_))) => "the answer does not fit the question".to_owned(),
            Ok(Err(tokio_modbus::Error::Transport(e))) => {
                // A serial port reports noise as bad data; anything else means the port is gone.
                if self.serial.is_none()
                    || !matches!(
                        e.kind(),
                        std::io::ErrorKind::InvalidData | std::io::ErrorKind::InvalidInput
                    )
                {
                    return Err(LineError::Lost(format!("connection lost: {e}")));
                }
                format!("no valid answer: {e}")
            }
            Ok(Err(e)) => format!("no valid answer: {e}"),
            Err(_) => format!(
                "unit {} gave no answer within {} ms",
                dev.slave, dev.timeout_ms
            ),
        };
        match &self.serial {
            None => Err(LineError::Lost(why)),
            Some(quiet) => {
                quiet.ask(wait);
                self.owing.entry(dev.slave).or_insert(0);
                Err(LineError::Silent(why))
            }
        }
    }
}

fn part(batch: &Batch, point: &Point, cells: &[u16]) -> Result<Value, PointError> {
    let from = usize::from(point.address - batch.address);
    match cells.get(from..from + usize::from(point.count)) {
        Some(own) => decode(point, own),
        None => Err(PointError::new("deviceFailure", "the answer was too short")),
    }
}

/// What a Modbus exception says (Application Protocol V1.1b3 §7).
fn exception(code: ExceptionCode) -> PointError {
    let cause = match code {
        ExceptionCode::IllegalDataAddress | ExceptionCode::IllegalFunction => "configuration",
        ExceptionCode::IllegalDataValue => "outOfRange",
        _ => "deviceFailure",
    };
    PointError::new(
        cause,
        format!(
            "the device answered exception {:#04x}: {code}",
            u8::from(code)
        ),
    )
}
