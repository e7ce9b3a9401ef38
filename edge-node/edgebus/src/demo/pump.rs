//! The demo's Modbus TCP device: a pump. Holding register 0 is its speed in rpm; input register 1 its
//! pressure in hundredths of a bar, which follows the speed.

use anyhow::{Context, Result};
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_modbus::server::Service;
use tokio_modbus::server::tcp::{Server, accept_tcp_connection};
use tokio_modbus::{ExceptionCode, Request, Response};
use tokio_util::sync::CancellationToken;

/// A running pump.
pub struct Pump {
    pub port: u16,
    speed: watch::Receiver<u16>,
}

struct State {
    speed: watch::Sender<u16>,
    /// Hundredths of a bar.
    pressure: Mutex<f64>,
}

impl Pump {
    /// Starts it on a free port.
    pub async fn start(stop: CancellationToken) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .context("a port for the simulated device")?;
        let port = listener.local_addr()?.port();
        let (tx, speed) = watch::channel(600);
        let state = Arc::new(State {
            speed: tx,
            pressure: Mutex::new(100.0),
        });
        let physics = state.clone();
        let ends = stop.clone();
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_millis(100));
            while ends.run_until_cancelled(tick.tick()).await.is_some() {
                physics.step();
            }
        });
        tokio::spawn(async move {
            let server = Server::new(listener);
            let connected = |stream, peer: SocketAddr| {
                let service = Registers(state.clone());
                async move { accept_tcp_connection(stream, peer, move |_| Ok(Some(service.clone()))) }
            };
            let failed = |e| tracing::debug!(error = %e, "the simulated device lost a connection");
            if let Err(e) = stop
                .run_until_cancelled(server.serve(&connected, failed))
                .await
                .transpose()
            {
                tracing::error!(error = %e, "the simulated device ended");
            }
        });
        Ok(Self { port, speed })
    }

    /// Waits until the speed register holds `wanted`.
    pub async fn reaches(&self, wanted: u16) {
        // The sender lives as long as the device.
        if self.speed.clone().wait_for(|s| *s == wanted).await.is_err() {
            std::future::pending().await
        }
    }
}

impl State {
    fn step(&self) {
        let goal = f64::from(*self.speed.borrow()) / 3.0;
        let mut pressure = self.pressure.lock().unwrap_or_else(PoisonError::into_inner);
        *pressure += (goal - *pressure) * 0.05;
    }

    fn cell(&self, address: u16) -> Option<u16> {
        match address {
            0 => Some(*self.speed.borrow()),
            1 => Some(
                self.pressure
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .round() as u16,
            ),
            _ => None,
        }
    }

    fn read(&self, address: u16, count: u16) -> Result<Vec<u16>, ExceptionCode> {
        let cells = (address..address.saturating_add(count)).map(|a| self.cell(a));
        cells
            .collect::<Option<Vec<u16>>>()
            .ok_or(ExceptionCode::IllegalDataAddress)
    }

    fn write(&self, address: u16, value: u16) -> Result<(), ExceptionCode> {
        match (address, value) {
            (0, 0..=3000) => {
                self.speed.send_replace(value);
                Ok(())
            }
            (0, _) => Err(ExceptionCode::IllegalDataValue),
            _ => Err(ExceptionCode::IllegalDataAddress),
        }
    }
}

#[derive(Clone)]
struct Registers(Arc<State>);

impl Service for Registers {
    type Request = Request<'static>;
    type Response = Response;
    type Exception = ExceptionCode;
    type Future = Ready<Result<Response, ExceptionCode>>;

    fn call(&self, request: Self::Request) -> Self::Future {
        let state = &self.0;
        ready(match request {
            Request::ReadHoldingRegisters(a, n) => {
                state.read(a, n).map(Response::ReadHoldingRegisters)
            }
            Request::ReadInputRegisters(a, n) => state.read(a, n).map(Response::ReadInputRegisters),
            Request::WriteSingleRegister(a, v) => state
                .write(a, v)
                .map(|()| Response::WriteSingleRegister(a, v)),
            _ => Err(ExceptionCode::IllegalFunction),
        })
    }
}
