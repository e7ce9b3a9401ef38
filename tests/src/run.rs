//! Processes that end with the test, and waiting for what should come true.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The one patience knob: how long `eventually` waits, in seconds.
fn patience() -> Duration {
    let said = std::env::var("EDGEBUS_TEST_PATIENCE_S")
        .ok()
        .and_then(|s| s.parse().ok());
    Duration::from_secs(said.unwrap_or(30))
}

/// Waits until `check` gives a value; fails with what it said last.
#[track_caller]
pub fn eventually<T>(what: &str, check: impl FnMut() -> Result<T, String>) -> T {
    eventually_for(patience(), what, check)
}

/// The same with a patience of its own.
#[track_caller]
pub fn eventually_for<T>(
    patience: Duration,
    what: &str,
    mut check: impl FnMut() -> Result<T, String>,
) -> T {
    let end = Instant::now() + patience;
    loop {
        match check() {
            Ok(value) => return value,
            Err(why) if Instant::now() > end => {
                panic!("not within {patience:?}: {what}; last seen: {why}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// The `edgebus` executable: EDGEBUS_BIN, or the one of the same target folder.
pub fn edgebus() -> PathBuf {
    if let Some(path) = std::env::var_os("EDGEBUS_BIN") {
        return path.into();
    }
    let me = std::env::current_exe().expect("a running test has a path");
    // A test stands in `deps/`, the bench and the soak beside the executable.
    let tree = me.ancestors().find(|p| p.ends_with("deps")).unwrap_or(&me);
    let built = tree.parent().map(|p| p.join("edgebus"));
    match built {
        Some(path) if path.exists() => path,
        other => panic!(
            "{other:?} is not built: run tests/run, or `cargo build --release -p edgebus` first"
        ),
    }
}

/// The executable of nodes: EDGEBUS_EDGE_BIN, one with the feature `edge` alone as on a gateway, else the same.
pub fn edge_edgebus() -> PathBuf {
    std::env::var_os("EDGEBUS_EDGE_BIN").map_or_else(edgebus, PathBuf::from)
}

/// A program of the tests' Python environment, else of the path.
pub fn tool(name: &str) -> PathBuf {
    let venv = std::env::var_os("EDGEBUS_TEST_VENV").map(PathBuf::from);
    venv.map(|v| v.join("bin").join(name))
        .filter(|p| p.exists())
        .unwrap_or_else(|| name.into())
}

/// A file of the tests.
pub fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A process that is killed when dropped; what it says goes to a file that a failing test prints.
pub struct Proc {
    /// The process.
    pub child: Child,
    name: String,
    log: PathBuf,
}

impl Proc {
    /// Starts it. Logs are appended to `dir/name.log`.
    pub fn start(name: &str, dir: &Path, mut command: Command) -> Self {
        let log = dir.join(format!("{name}.log"));
        let open = || {
            File::options()
                .create(true)
                .append(true)
                .open(&log)
                .expect("a log can be opened")
        };
        command.stdout(open()).stderr(open());
        if std::env::var_os("RUST_LOG").is_none() {
            command.env("RUST_LOG", "info");
        }
        let child = command
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        Self {
            child,
            name: name.to_owned(),
            log,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// `kill -9`, and waits for its end.
    pub fn kill(&mut self) {
        self.child
            .kill()
            .and_then(|()| self.child.wait())
            .map(drop)
            .unwrap_or_else(|e| panic!("cannot kill {}: {e}", self.name));
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        send(self.pid(), signal);
    }

    /// SIGTERM, and waits for its end at most `wait`.
    pub fn stop(&mut self, wait: Duration) -> Option<i32> {
        self.signal(rustix::process::Signal::TERM);
        eventually_for(wait, &format!("{} ends after SIGTERM", self.name), || {
            let ended = self.child.try_wait().map_err(|e| e.to_string())?;
            ended
                .map(|s| s.code())
                .ok_or_else(|| "still running".to_owned())
        })
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            let mut err = std::io::stderr().lock();
            drop(writeln!(err, "--- end of {}'s log", self.name));
            for line in tail.iter().rev() {
                drop(writeln!(err, "{line}"));
            }
        }
    }
}

/// Sends a signal to a process that may be gone.
pub fn send(pid: u32, signal: rustix::process::Signal) {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
        .expect("a process id");
    if let Err(e) = rustix::process::kill_process(pid, signal) {
        assert_eq!(e, rustix::io::Errno::SRCH, "cannot signal {pid:?}");
    }
}

/// Runs a command to its end within `wait`: exit code, standard output, standard error.
pub fn output(mut command: Command, wait: Duration) -> (i32, String, String) {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
    let read = |stream: Option<Box<dyn std::io::Read + Send>>| {
        std::thread::spawn(move || {
            let mut text = String::new();
            if let Some(mut s) = stream {
                drop(s.read_to_string(&mut text));
            }
            text
        })
    };
    let out = read(child.stdout.take().map(|s| Box::new(s) as _));
    let err = read(child.stderr.take().map(|s| Box::new(s) as _));
    let end = Instant::now() + wait;
    let status = loop {
        match child.try_wait().expect("a child can be waited for") {
            Some(status) => break status,
            None if Instant::now() > end => {
                drop(child.kill());
                panic!("{command:?} did not end within {wait:?}");
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let join = |t: std::thread::JoinHandle<String>| t.join().unwrap_or_default();
    (status.code().unwrap_or(-1), join(out), join(err))
}
