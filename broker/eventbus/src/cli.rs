//! `edgebus broker`: opens the sockets, reads the parent's grants, and runs until told to end.

use std::fs::{self, File, Permissions};
use std::io::{self, BufReader, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use edgebus_bus::unit::Grant;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::grants::read_lines;
use crate::run::{Listeners, run};

/// What the command line says. In `run_dir` the broker makes `bus.sock`, `app/app.sock` (a folder
/// of its own, so that a pod that mounts it sees the socket of the next broker too) and, readable
/// by its owner only, `admin/admin.sock`.
#[derive(Debug, Clone)]
pub struct Args {
    /// Folder of `bus.db`.
    pub data_dir: PathBuf,
    /// Folder of the sockets.
    pub run_dir: PathBuf,
    /// Where MQTT over TCP listens; port 0 chooses one. `None` = no TCP.
    pub tcp: Option<SocketAddr>,
    /// Admit clients without credentials on TCP as role `app`.
    pub anonymous_tcp: bool,
    /// Descriptor from which grants are read; 0 = standard input. It must be a pipe if it is
    /// not 0. Its end means that the parent is gone.
    pub grants_fd: i32,
}

impl Args {
    /// The defaults: TCP on 127.0.0.1:1883, nobody anonymous, grants on standard input.
    pub fn new(data_dir: impl Into<PathBuf>, run_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            run_dir: run_dir.into(),
            tcp: Some(SocketAddr::from(([127, 0, 0, 1], 1883))),
            anonymous_tcp: false,
            grants_fd: 0,
        }
    }
}

/// Time between two signs of life to the parent.
const ALIVE: Duration = Duration::from_secs(10);

/// Runs the broker as a process. Prints one JSON line,
/// `{"tcp":"127.0.0.1:PORT","up":true,"again_ms":10000}`, on standard output once the sockets are
/// open, and from then on the same without `tcp` every `again_ms`: silence means that this process
/// hangs. `tcp` is missing if there is none.
///
/// # Errors
/// If a socket cannot be opened, another broker uses the same folder, or the store fails.
pub async fn broker_main(args: Args) -> anyhow::Result<()> {
    let lock = lock(&args.run_dir)?;
    let mut config = Config::new(&args.data_dir);
    config.anonymous_tcp = args.anonymous_tcp;
    let listeners = open(&args).await?;
    let port = listeners.tcp.as_ref().map(TcpListener::local_addr);
    let port = port.transpose().context("reading the TCP port")?;
    let alive = serde_json::json!({ "up": true, "again_ms": ALIVE.as_millis() as u64 });
    let mut said = alive.clone();
    if let Some(tcp) = port {
        said["tcp"] = tcp.to_string().into();
    }
    tell_parent(&said).context("telling the port")?;
    let grants = grants(args.grants_fd)?;
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let signalled = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        signalled.cancel();
    });
    // On the thread that does the broker's work, so that it falls silent when that does.
    let speaking = tokio::spawn(async move {
        let mut ticks = interval_at(Instant::now() + ALIVE, ALIVE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if !takes_more(io::stdout()) {
                continue;
            }
            // Nobody listens when it runs by hand into a closed pipe; that is no reason to end.
            if tell_parent(&alive).is_err() {
                return;
            }
        }
    });
    let result = run(config, listeners, grants, stop).await;
    speaking.abort();
    drop(lock);
    result
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

fn tell_parent(what: &serde_json::Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{what}")?;
    out.flush()
}

fn grants(fd: i32) -> anyhow::Result<mpsc::Receiver<Grant>> {
    if fd == 0 {
        return read_lines(BufReader::new(io::stdin())).context("reading grants");
    }
    let path = format!("/proc/self/fd/{fd}");
    let file = File::open(&path).with_context(|| format!("opening the grants at {path}"))?;
    read_lines(BufReader::new(file)).context("reading grants")
}

/// One broker per folder: a second would take its sockets away.
fn lock(folder: &Path) -> anyhow::Result<File> {
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let path = folder.join("broker.lock");
    let file = File::create(&path).with_context(|| format!("opening {}", path.display()))?;
    if rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!("another broker runs in {}", folder.display());
    }
    Ok(file)
}

async fn open(args: &Args) -> anyhow::Result<Listeners> {
    let folder = &args.run_dir;
    let tcp = match args.tcp {
        Some(at) => {
            let listener = TcpListener::bind(at).await;
            Some(listener.with_context(|| format!("listening on {at}"))?)
        }
        None => None,
    };
    Ok(Listeners {
        admin: Some(socket(&folder.join("admin"), "admin.sock", 0o700, 0o600)?),
        bus: Some(socket(folder, "bus.sock", 0o750, 0o666)?),
        app: Some(socket(&folder.join("app"), "app.sock", 0o755, 0o666)?),
        tcp,
    })
}

fn socket(folder: &Path, name: &str, folder_mode: u32, mode: u32) -> anyhow::Result<UnixListener> {
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let allow = |path: &Path, mode| {
        fs::set_permissions(path, Permissions::from_mode(mode))
            .with_context(|| format!("setting the mode of {}", path.display()))
    };
    allow(folder, folder_mode)?;
    let path = folder.join(name);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("removing the old {}", path.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(&path);
    let listener = listener.with_context(|| format!("listening on {}", path.display()))?;
    allow(&path, mode)?;
    Ok(listener)
}
