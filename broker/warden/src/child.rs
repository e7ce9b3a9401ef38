//! One child process: started as leader of its own process group, watched, ended with all that it
//! started itself (a mapper in shell is a pipeline, not a process).

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use std::fs;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// How long a child may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);
/// Longest line of a child's output that is looked at whole.
const LINE_BYTES: u64 = 8 * 1024;

/// A process that runs.
pub(crate) struct Running {
    child: Child,
    pub pid: u32,
    pub started_ticks: Option<u64>,
    pub since: Instant,
    /// What it says of itself.
    pub voice: Arc<Voice>,
}

/// What a child says of itself on its standard output, one JSON object a line: `{"up":true}` when
/// it is connected and at work, and with `"again_ms":N` that it will say so again every N ms.
#[derive(Default)]
pub(crate) struct Voice {
    up: AtomicBool,
    /// Promised time between two words, in milliseconds; 0 = none promised.
    again_ms: AtomicU64,
    last: Mutex<Option<Instant>>,
}

/// Promised words that may fail to come before a child counts as hung. Long enough (two minutes
/// for our own units) that what a pause does to a node is seen, and an overloaded machine is not
/// made busier with restarts.
const MISSED: u32 = 12;

impl Voice {
    /// Takes a line of output. True = it was such a word.
    pub fn hear(&self, line: &str) -> bool {
        if !line.starts_with('{') {
            return false;
        }
        let Ok(said) = serde_json::from_str::<serde_json::Value>(line) else {
            return false;
        };
        if said.get("up") != Some(&serde_json::Value::Bool(true)) {
            return false;
        }
        let again_ms = said.get("again_ms").and_then(|v| v.as_u64());
        self.again_ms
            .store(again_ms.unwrap_or_default(), Ordering::Relaxed);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.up.store(true, Ordering::Relaxed);
        true
    }

    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// The time by which it must have spoken again, if it promised to.
    fn due(&self) -> Option<Instant> {
        let again = Duration::from_millis(self.again_ms.load(Ordering::Relaxed));
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        (!again.is_zero()).then_some(last? + again * MISSED)
    }

    /// Waits until a promise is broken.
    pub async fn hung(&self) {
        loop {
            match self.due() {
                Some(due) if Instant::now() >= due => return,
                Some(due) => sleep_until(due).await,
                None => sleep(Duration::from_secs(5)).await,
            }
        }
    }
}

/// Starts `command`; the caller gets its standard input and output.
pub(crate) fn spawn(mut command: Command) -> Result<(Running, ChildStdin, ChildStdout)> {
    let shown = format!("{:?}", command.as_std().get_program());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("starting {shown}"))?;
    let pid = child.id().context("the child ended at once")?;
    let stdin = child.stdin.take().context("the child has no input")?;
    let stdout = child.stdout.take().context("the child has no output")?;
    let running = Running {
        child,
        pid,
        started_ticks: started_ticks(pid),
        since: Instant::now(),
        voice: Arc::default(),
    };
    Ok((running, stdin, stdout))
}

impl Running {
    /// Waits until it ends by itself. Cancel-safe.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        self.child.wait().await.context("waiting for a child")
    }

    /// Kills what it started and left behind.
    pub fn sweep(&self) {
        signal_group(self.pid, Signal::KILL);
    }

    /// Ends it: SIGTERM, and SIGKILL for those who do not listen.
    pub async fn end(mut self) {
        let begun = Instant::now();
        signal_group(self.pid, Signal::TERM);
        if timeout(GRACE, self.child.wait()).await.is_err() {
            tracing::warn!(
                pid = self.pid,
                "still there {GRACE:?} after SIGTERM: SIGKILL"
            );
            signal_group(self.pid, Signal::KILL);
            if let Err(error) = self.child.wait().await {
                tracing::warn!(pid = self.pid, %error, "waiting for a killed child");
            }
        }
        self.sweep();
        tracing::debug!(pid = self.pid, took = ?begun.elapsed(), "ended");
    }
}

/// Sends a signal to a process group; nobody there is fine.
fn signal_group(leader: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(leader).ok().and_then(Pid::from_raw)
        && test_kill_process_group(pid).is_ok()
        && let Err(error) = kill_process_group(pid, signal)
    {
        tracing::debug!(leader, %error, "signal not sent");
    }
}

/// Hands each line of a child's output to `line`, until the output ends.
pub(crate) async fn lines(output: ChildStdout, mut line: impl FnMut(&str)) {
    let mut output = BufReader::with_capacity(1024, output);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let mut piece = (&mut output).take(LINE_BYTES);
        match piece.read_until(b'\n', &mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(_) => line(String::from_utf8_lossy(&bytes).trim_end()),
        }
    }
}

/// What `/proc/{pid}/stat` says of a process.
pub(crate) struct Stat {
    pub state: char,
    pub group: u32,
    /// When it started, in clock ticks since boot.
    pub started_ticks: u64,
}

pub(crate) fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything, parentheses too.
    let fields: Vec<_> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        group: fields.get(2)?.parse().ok()?,
        started_ticks: fields.get(19)?.parse().ok()?,
    })
}

/// When a process started.
pub(crate) fn started_ticks(pid: u32) -> Option<u64> {
    stat(pid).map(|s| s.started_ticks)
}

/// The kernel's id of this boot.
pub(crate) fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// Has the group a member that is not just waiting to be reaped? (In a container nobody may ever
/// reap what is not ours.)
fn group_lives(leader: u32) -> bool {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(stat)
        .any(|s| s.group == leader && s.state != 'Z')
}

/// Ends the process groups of `leaders`, which are not our children.
pub(crate) async fn end_strangers(leaders: &[u32]) {
    for (signal, patience) in [
        (Signal::TERM, Duration::from_secs(3)),
        (Signal::KILL, Duration::from_secs(2)),
    ] {
        let deadline = Instant::now() + patience;
        for leader in leaders {
            signal_group(*leader, signal);
        }
        while leaders.iter().any(|l| group_lives(*l)) {
            if Instant::now() >= deadline {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}
