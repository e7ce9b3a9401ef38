//! The processes of the demo: started from this same executable, their logs in files, ended together.

use anyhow::{Context, Result, bail};
use std::fs::File;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

struct Part {
    name: String,
    args: Vec<String>,
    child: Child,
}

/// All that was started.
pub struct Parts {
    exe: PathBuf,
    dir: PathBuf,
    running: Vec<Part>,
}

impl Parts {
    pub fn new(dir: &Path) -> Result<Self> {
        Ok(Self {
            exe: std::env::current_exe().context("finding this executable")?,
            dir: dir.to_owned(),
            running: Vec::new(),
        })
    }

    fn log(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.log"))
    }

    /// Starts a process.
    pub fn start(&mut self, name: &str, args: &[&str]) -> Result<()> {
        let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
        let child = self.spawn(name, &args)?;
        self.running.push(Part {
            name: name.to_owned(),
            args,
            child,
        });
        Ok(())
    }

    fn spawn(&self, name: &str, args: &[String]) -> Result<Child> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log(name));
        let log = log.with_context(|| format!("a log for {name}"))?;
        Command::new(&self.exe)
            .args(args)
            .env_remove("KUBECONFIG")
            .env(
                "EDGEBUS_LOG",
                std::env::var("EDGEBUS_LOG").unwrap_or_else(|_| "info".into()),
            )
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C reaches the demo alone, which then ends its parts in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {name}"))
    }

    /// Starts again whatever has ended, as systemd and a cluster would.
    pub fn revive(&mut self) -> Result<()> {
        for i in 0..self.running.len() {
            if let Some(status) = self.running[i].child.try_wait()? {
                let (name, args) = (self.running[i].name.clone(), self.running[i].args.clone());
                println!("  {name} ended ({status}); starting it again");
                self.running[i].child = self.spawn(&name, &args)?;
            }
        }
        Ok(())
    }

    /// Waits until `check` succeeds; fails early if the process it depends on has ended.
    pub async fn until<T, F, Fut>(
        &mut self,
        depends_on: &str,
        wait: Duration,
        check: F,
    ) -> Result<T>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let end = Instant::now() + wait;
        loop {
            let last = match check().await {
                Ok(value) => return Ok(value),
                Err(e) => e,
            };
            for part in &mut self.running {
                if part.name == depends_on
                    && let Some(status) = part.child.try_wait()?
                {
                    bail!("{} ended: {status}", part.name);
                }
            }
            if Instant::now() > end {
                return Err(last.context(format!("not within {wait:?}")));
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Prints the ends of all logs: something went wrong.
    pub fn show_logs(&self) {
        for Part { name, .. } in &self.running {
            let text = std::fs::read_to_string(self.log(name)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            eprintln!("--- end of {}", self.log(name).display());
            for line in &lines[lines.len().saturating_sub(15)..] {
                eprintln!("{line}");
            }
        }
    }

    /// Ends everything, the last started first.
    pub async fn stop(&mut self) {
        while let Some(Part {
            name, mut child, ..
        }) = self.running.pop()
        {
            let pid = child
                .id()
                .and_then(|p| i32::try_from(p).ok())
                .and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid
                && let Err(e) = rustix::process::kill_process(pid, rustix::process::Signal::TERM)
            {
                tracing::debug!(name, error = %e, "already gone");
            }
            if timeout(Duration::from_secs(10), child.wait())
                .await
                .is_err()
            {
                tracing::warn!(name, "did not end by itself; killed");
                if let Err(e) = child.kill().await {
                    tracing::warn!(name, error = %e, "could not be killed");
                }
            }
        }
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("a free port on loopback")?;
    Ok(listener.local_addr()?.port())
}
