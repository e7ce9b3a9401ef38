//! One child for as long as it is wanted: started, watched, started again.

use crate::board::UnitStatus;
use crate::broker;
use crate::child::{self, Running};
use crate::clients;
use crate::describe::{self, DescribeError};
use crate::leftover::MARK;
use crate::policy::{Next, Policy};
use crate::run::Node;
use crate::token::chance;
use anyhow::{Context, Result};
use edgebus_bus::Role;
use edgebus_bus::unit::Welcome;
use std::fs;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::{Notify, oneshot};
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What a child is.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Broker,
    /// `edgebus {name}`.
    Own(Role),
    /// A file in `mappers.d/`.
    Mapper(PathBuf),
}

/// How a child ended, or did not even begin.
enum Outcome {
    Ended(ExitStatus, Duration, bool),
    NotStarted(anyhow::Error),
    /// It broke its promise to say that it is alive, and was ended.
    Hung(Duration),
    Stopped,
    Replaced,
}

/// Keeps `name` running until `stop`; `replaced` starts it anew.
pub(crate) async fn keep(
    node: Arc<Node>,
    name: String,
    kind: Kind,
    replaced: Arc<Notify>,
    stop: CancellationToken,
) {
    let mut policy = Policy::default();
    let mut starts = 0u64;
    let mut described = false;
    loop {
        let outcome = once(
            &node,
            &name,
            &kind,
            &mut described,
            starts,
            &replaced,
            &stop,
        )
        .await;
        starts += 1;
        let (next, why) = match outcome {
            Outcome::Stopped => break,
            Outcome::Replaced => {
                tracing::info!(unit = name, "its file has changed: starting it anew");
                policy.replaced();
                described = false;
                continue;
            }
            Outcome::Ended(status, lived, up) => {
                let why = format!("{status} after {:.1} s", lived.as_secs_f64());
                (policy.ended(status.code(), lived, up, chance()), why)
            }
            Outcome::Hung(lived) => {
                let why = "hung: it no longer said that it is up".to_owned();
                (policy.ended(None, lived, true, chance()), why)
            }
            Outcome::NotStarted(error) => {
                let why = format!("{error:#}");
                let next = match error.downcast_ref::<DescribeError>() {
                    Some(e) if !e.is_passing() => Next::WhenReplaced,
                    _ => policy.ended(None, Duration::ZERO, false, chance()),
                };
                (next, why)
            }
        };
        let (state, wait) = match next {
            Next::Now => (UnitStatus::Waiting, Some(Duration::ZERO)),
            Next::After(wait) => (UnitStatus::Waiting, Some(wait)),
            Next::Rarely(wait) => (UnitStatus::Degraded, Some(wait)),
            Next::WhenReplaced if described || !matches!(kind, Kind::Mapper(_)) => {
                (UnitStatus::BadConfig, None)
            }
            Next::WhenReplaced => (UnitStatus::Refused, None),
        };
        match wait {
            Some(wait) => tracing::warn!(unit = name, why, ?wait, "ended; starting it again"),
            None => tracing::error!(unit = name, why, "not started again until its file changes"),
        }
        node.board.unit(&name, |u| {
            u.state = state;
            u.pid = None;
            u.started_ticks = None;
            u.why = Some(why);
        });
        let pause = async {
            match wait {
                Some(wait) => sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = pause => {}
            () = replaced.notified() => {
                policy.replaced();
                described = false;
            }
            () = stop.cancelled() => break,
        }
    }
    node.board.unit(&name, |u| {
        u.state = UnitStatus::Stopped;
        u.pid = None;
        u.started_ticks = None;
    });
}

async fn once(
    node: &Arc<Node>,
    name: &str,
    kind: &Kind,
    described: &mut bool,
    starts: u64,
    replaced: &Notify,
    stop: &CancellationToken,
) -> Outcome {
    let exe = match kind {
        Kind::Mapper(path) => path,
        _ => &node.config.exe,
    };
    let begun = tokio::select! {
        begun = begin(node, name, kind, described) => begun,
        () = stop.cancelled() => return Outcome::Stopped,
    };
    let (mut running, _input) = match begun {
        Ok(begun) => begun,
        Err(error) => return Outcome::NotStarted(error),
    };
    node.board.unit(name, |u| {
        // A unit that says `up` at once may have been faster than this line.
        u.state = if running.voice.is_up() {
            UnitStatus::Up
        } else {
            UnitStatus::Running
        };
        u.pid = Some(running.pid);
        u.started_ticks = running.started_ticks;
        u.exe = exe.display().to_string();
        u.restarts = starts;
        u.why = None;
    });
    tracing::info!(unit = name, pid = running.pid, "started");
    let voice = running.voice.clone();
    tokio::select! {
        status = running.ended() => {
            running.sweep();
            match status {
                Ok(status) => {
                    Outcome::Ended(status, running.since.elapsed(), running.voice.is_up())
                }
                Err(error) => Outcome::NotStarted(error),
            }
        }
        () = voice.hung() => {
            tracing::warn!(unit = name, pid = running.pid, "hung: ending it");
            let since = running.since;
            running.end().await;
            Outcome::Hung(since.elapsed())
        }
        () = stop.cancelled() => {
            running.end().await;
            Outcome::Stopped
        }
        () = replaced.notified() => {
            running.end().await;
            Outcome::Replaced
        }
    }
}

/// Starts a child. What is returned beside it keeps its standard input open.
async fn begin(
    node: &Arc<Node>,
    name: &str,
    kind: &Kind,
    described: &mut bool,
) -> Result<(Running, Option<oneshot::Sender<()>>)> {
    let config = &node.config;
    let (role, mut command) = match kind {
        Kind::Broker => return broker::start(node).await.map(|r| (r, None)),
        Kind::Own(role) => {
            let mut command = Command::new(&config.exe);
            command.arg(name).args(config.args_of(name));
            (*role, command)
        }
        Kind::Mapper(path) => {
            if !*described {
                let said = describe::describe(path).await?;
                tracing::info!(unit = name, protocol = said.protocol, "a mapper");
                *described = true;
            }
            let mut command = Command::new(path);
            command.env_clear();
            // What a script needs to find its interpreter and to log; nothing of ours.
            for kept in ["PATH", "LANG", "TZ", "EDGEBUS_LOG"] {
                if let Some(value) = std::env::var_os(kept) {
                    command.env(kept, value);
                }
            }
            (Role::Mapper, command)
        }
    };
    let tcp = node.tcp().await?;
    let token = node.tokens.allow(role, name)?;
    let data_dir = match kind {
        Kind::Mapper(_) => config.data_dir.join("mappers").join(name),
        _ => config.data_dir.join(name),
    };
    clients::private_dir(&data_dir).with_context(|| format!("making {data_dir:?}"))?;
    command.env(MARK, &config.run_dir);
    if matches!(kind, Kind::Mapper(_)) {
        let settings = node.paths.unit_clients.join(name);
        clients::write(&settings, &tcp, name, &token)
            .with_context(|| format!("writing {settings:?}"))?;
        command
            .current_dir(&data_dir)
            .env("HOME", &data_dir)
            .env("XDG_CONFIG_HOME", &settings)
            .env("EDGEBUS_NAME", name)
            .env("EDGEBUS_NODE", config.node.as_str())
            .env("EDGEBUS_TCP", &tcp);
    }
    let opens_sealed = matches!(role, Role::Edged | Role::DeviceTwin);
    let welcome = Welcome {
        name: name.to_owned(),
        role,
        token,
        socket: node.paths.bus_socket.display().to_string(),
        tcp,
        node: config.node.to_string(),
        data_dir: data_dir.display().to_string(),
        sealing_key: opens_sealed
            .then(|| fs::read_to_string(&node.paths.sealing_key).ok())
            .flatten()
            .map(|key| key.trim().to_owned()),
    };
    let (running, stdin, stdout) = child::spawn(command)?;
    let input = broker::keep_open(stdin, welcome);
    let (voice, node, unit) = (running.voice.clone(), node.clone(), name.to_owned());
    tokio::spawn(child::lines(stdout, move |line| {
        let was_up = voice.is_up();
        if !voice.hear(line) {
            tracing::info!(unit, "{line}");
        } else if !was_up {
            node.board.unit(&unit, |u| u.state = UnitStatus::Up);
        }
    }));
    Ok((running, Some(input)))
}

/// A unit and what ends or restarts it.
pub(crate) struct Kept {
    pub replaced: Arc<Notify>,
    pub stop: CancellationToken,
    pub task: tokio::task::JoinHandle<()>,
    /// Whoever drops the warden's future instead of stopping it ends its children too.
    _guard: DropGuard,
}

impl Kept {
    pub fn start(node: &Arc<Node>, name: &str, kind: Kind) -> Self {
        let (replaced, stop) = (Arc::new(Notify::new()), CancellationToken::new());
        let task = keep(
            node.clone(),
            name.to_owned(),
            kind,
            replaced.clone(),
            stop.clone(),
        );
        Self {
            task: tokio::spawn(task),
            _guard: stop.clone().drop_guard(),
            replaced,
            stop,
        }
    }

    /// Ends it and waits for that.
    pub async fn end(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "a supervising task failed");
        }
    }
}
