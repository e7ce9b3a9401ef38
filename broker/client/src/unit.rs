//! How a unit of the node starts and ends.
//!
//! Its parent, `edgebus node`, writes one line of JSON ([`Welcome`]) on its standard input and
//! keeps that open; the end of standard input means that the parent is gone, and the unit stops.
//! By hand it takes `--name`, `--socket` (or `--tcp`), `--token-file`, `--node`, `--data-dir`.

use crate::bus::Bus;
use crate::options::ConnectOptions;
use anyhow::{Context, Result, anyhow, bail};
use edgebus_bus::Role;
use edgebus_bus::unit::{EXIT_CONFIG, Welcome};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::future::Future;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

/// Longest first line that is read.
const WELCOME_BYTES: u64 = 64 * 1024;
/// How long the parent may take to say it.
const WELCOME_TIME: Duration = Duration::from_secs(10);
/// How long the body may take to end once told to stop: with the two seconds that the bus gets for
/// its last words, less than the parent waits before SIGKILL.
const STOP_TIME: Duration = Duration::from_millis(2500);

/// An error that will not go away by itself: the process ends with exit code 64 and is not
/// started again until its file changes.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadConfig(pub String);

/// Runs a unit: reads its welcome, starts logging, connects, runs `body` until it ends or a signal,
/// the end of standard input or an error stops it; then says `down` and disconnects. Call it from
/// within a runtime; `main` is its exit code: 0, 1 = failed, 64 = bad configuration.
pub async fn main<F, Fut>(args: &[String], body: F) -> ExitCode
where
    F: FnOnce(Welcome, Bus, CancellationToken) -> Fut,
    Fut: Future<Output = Result<()>>,
{
    crate::log::start("info");
    match run(args, body).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<BadConfig>() => {
            tracing::error!("bad configuration: {error:#}");
            ExitCode::from(EXIT_CONFIG as u8)
        }
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run<F, Fut>(args: &[String], body: F) -> Result<()>
where
    F: FnOnce(Welcome, Bus, CancellationToken) -> Fut,
    Fut: Future<Output = Result<()>>,
{
    let stop = CancellationToken::new();
    let (welcome, has_parent) = match by_hand(args)? {
        Some(welcome) => (welcome, false),
        None => (from_parent(&stop).await?, true),
    };
    stop_on_signals(stop.clone())?;
    let options = ConnectOptions::try_from(&welcome).map_err(|e| BadConfig(e.to_string()))?;
    // Its own token: the bus outlives the body, which has last words.
    let bus = Bus::connect(options, CancellationToken::new());
    let told = has_parent.then(|| tokio::spawn(tell_parent(bus.clone())));
    let body = body(welcome, bus.clone(), stop.clone());
    tokio::pin!(body);
    let outcome = tokio::select! {
        outcome = &mut body => outcome,
        () = stop.cancelled() => match timeout(STOP_TIME, &mut body).await {
            Ok(outcome) => outcome,
            Err(_) => {
                tracing::warn!("did not stop within {STOP_TIME:?}");
                Ok(())
            }
        },
    };
    if let Some(told) = told {
        told.abort();
    }
    bus.close().await;
    outcome
}

/// Time between two signs of life to the parent.
const ALIVE: Duration = Duration::from_secs(10);

/// Says on standard output that we are up, from the first connection on: an end after that is no
/// failure to start, and silence after that means that this process hangs.
async fn tell_parent(bus: Bus) {
    let mut status = bus.status();
    if status.wait_for(|s| s.connected).await.is_err() {
        return;
    }
    let mut ticks = interval(ALIVE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut out = std::io::stdout().lock();
        if !takes_more(&out) {
            continue;
        }
        let said = writeln!(out, r#"{{"up":true,"again_ms":{}}}"#, ALIVE.as_millis());
        // Nobody listens when it runs by hand into a closed pipe; that is no reason to end.
        if said.and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

/// Whether a line can be written there at once. A parent that is stopped reads nothing, and must not stop us too.
fn takes_more(out: impl AsFd) -> bool {
    let mut ready = [PollFd::new(&out, PollFlags::OUT)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut ready, Some(&at_once)).is_ok_and(|n| n > 0)
}

/// Reads standard input on a thread of its own: tokio's would keep the process from ending while
/// a read is under way.
async fn from_parent(stop: &CancellationToken) -> Result<Welcome> {
    let (said, first) = oneshot::channel();
    let gone = stop.clone();
    std::thread::Builder::new()
        .name("stdin".into())
        .stack_size(64 * 1024)
        .spawn(move || {
            let mut input = BufReader::with_capacity(4096, std::io::stdin().lock());
            let mut line = String::new();
            let read = (&mut input).take(WELCOME_BYTES).read_line(&mut line);
            drop(said.send(read.map(|_| line)));
            // Later lines are for later versions; the end is the parent's.
            drop(std::io::copy(&mut input, &mut std::io::sink()));
            tracing::info!("standard input ended: the parent is gone");
            gone.cancel();
        })
        .context("starting the thread that reads standard input")?;
    let line = timeout(WELCOME_TIME, first)
        .await
        .map_err(|_| {
            BadConfig(format!(
                "nothing on standard input within {WELCOME_TIME:?}; by hand: --name NAME --socket PATH --token-file FILE"
            ))
        })?
        .context("reading standard input")?
        .context("reading standard input")?;
    let welcome = serde_json::from_str(&line).map_err(|e| {
        let found = if line.is_empty() {
            "standard input is empty".into()
        } else {
            format!("the first line on standard input is no welcome: {e}")
        };
        BadConfig(format!(
            "{found}. `edgebus node` starts its units and says there who each is and where the bus is; \
             by hand: --name NAME --socket RUN_DIR/bus.sock --token-file FILE"
        ))
    })?;
    Ok(welcome)
}

/// The welcome from flags; none if there are no flags.
fn by_hand(args: &[String]) -> Result<Option<Welcome>> {
    if args.is_empty() {
        return Ok(None);
    }
    let mut welcome = Welcome {
        name: String::new(),
        role: Role::App,
        token: String::new(),
        socket: String::new(),
        tcp: String::new(),
        node: "local".into(),
        data_dir: ".".into(),
        sealing_key: None,
    };
    let mut args = args.iter();
    while let Some(flag) = args.next() {
        let (flag, value) = match flag.split_once('=') {
            Some((flag, value)) => (flag, value.to_owned()),
            None => {
                let value = args
                    .next()
                    .ok_or_else(|| BadConfig(format!("{flag} needs a value")))?;
                (flag.as_str(), value.clone())
            }
        };
        match flag {
            "--name" => welcome.name = value,
            "--socket" => welcome.socket = value,
            "--tcp" => welcome.tcp = value,
            "--node" => welcome.node = value,
            "--data-dir" => welcome.data_dir = value,
            "--token-file" => {
                let text = std::fs::read_to_string(&value)
                    .map_err(|e| BadConfig(format!("--token-file {value}: {e}")))?;
                welcome.token = text.trim().to_owned();
            }
            other => bail!(BadConfig(format!(
                "unknown flag {other:?}; known: --name --socket --tcp --token-file --node --data-dir"
            ))),
        }
    }
    if welcome.socket.is_empty() && welcome.tcp.is_empty() {
        return Err(anyhow!(BadConfig("--socket or --tcp is needed".into())));
    }
    Ok(Some(welcome))
}

/// Cancels `stop` at SIGTERM and SIGINT.
pub fn stop_on_signals(stop: CancellationToken) -> Result<()> {
    let mut term = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
            () = stop.cancelled() => {}
        }
        stop.cancel();
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_that_reads_nothing_is_not_waited_for() {
        let (mut parent, out) = std::io::pipe().unwrap();
        assert!(takes_more(&out));
        let line = [b'x'; 1024];
        let mut written = 0;
        while takes_more(&out) {
            written += (&out).write(&line).unwrap();
            assert!(written < 64 << 20, "no pipe is that large");
        }
        let mut read = vec![0; written];
        parent.read_exact(&mut read).unwrap();
        assert!(takes_more(&out));
        drop(parent);
        assert!(takes_more(&out), "the write then says that nobody is there");
    }
}
