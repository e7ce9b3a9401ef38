//! The broker as a child: it reads tokens ([`Grant`](edgebus_bus::unit::Grant), one JSON object a
//! line) on standard input, `ready` after those that are valid now, and ends at its end; it prints
//! `{"tcp":"host:port"}` once it listens. In that line and after it, it speaks as a unit does
//! ([`Voice`](crate::child::Voice)): one that promised to and falls silent is ended and started anew.

use crate::child::{self, Running};
use crate::leftover::MARK;
use crate::run::Node;
use anyhow::{Context, Result, bail};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// How long it may take to listen: after a crash it checks its store first.
const LISTEN_TIME: Duration = Duration::from_secs(60);

/// Starts it, and returns once it listens.
pub(crate) async fn start(node: &Arc<Node>) -> Result<Running> {
    let config = &node.config;
    // The port of the first start is kept: units have been told it.
    let tcp = node.tcp.borrow().clone();
    let mut command = Command::new(&config.exe);
    command
        .arg("broker")
        .arg("--data-dir")
        .arg(&node.paths.broker_data)
        .arg("--run-dir")
        .arg(&config.run_dir)
        .arg("--tcp")
        .arg(tcp.as_ref().unwrap_or(&config.tcp))
        .args(config.anonymous.then_some("--anonymous"))
        .args(config.args_of("broker"))
        .env(MARK, &config.run_dir);
    let (mut running, mut stdin, stdout) = child::spawn(command)?;
    let (grants, mut changes) = node.tokens.attach();
    tokio::spawn(async move {
        for grant in grants {
            if say(&mut stdin, &grant).await.is_err() {
                return;
            }
        }
        while let Some(grant) = changes.recv().await {
            if say(&mut stdin, &grant).await.is_err() {
                return;
            }
        }
    });
    let (tell, listening) = mpsc::channel(1);
    let voice = running.voice.clone();
    tokio::spawn(child::lines(stdout, move |line| {
        let spoke = voice.hear(line);
        let said: Option<String> = serde_json::from_str::<serde_json::Value>(line)
            .ok()
            .and_then(|v| Some(v.get("tcp")?.as_str()?.to_owned()));
        match said {
            // Full = it said it before.
            Some(tcp) => drop(tell.try_send(tcp)),
            None if spoke => {}
            None => tracing::info!(unit = "broker", "{line}"),
        }
    }));
    match await_listening(&mut running, listening).await {
        Ok(tcp) => {
            if !running.voice.is_up() {
                // It listens, and promises nothing.
                running.voice.hear(r#"{"up":true}"#);
            }
            node.tcp.send_replace(Some(tcp));
            Ok(running)
        }
        Err(error) => {
            running.end().await;
            Err(error)
        }
    }
}

async fn await_listening(
    running: &mut Running,
    mut listening: mpsc::Receiver<String>,
) -> Result<String> {
    tokio::select! {
        tcp = timeout(LISTEN_TIME, listening.recv()) => {
            tcp.with_context(|| format!("the broker did not listen within {LISTEN_TIME:?}"))?
                .context("the broker closed its output")
        }
        status = running.ended() => bail!("the broker ended before it listened ({})", status?),
    }
}

async fn say<T: serde::Serialize>(
    to: &mut (impl tokio::io::AsyncWrite + Unpin),
    what: &T,
) -> Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    to.write_all(&line).await?;
    to.flush().await?;
    Ok(())
}

/// Writes a unit's first line; the input stays open until the returned sender is dropped.
pub(crate) fn keep_open<T: serde::Serialize + Send + Sync + 'static>(
    mut stdin: tokio::process::ChildStdin,
    first: T,
) -> oneshot::Sender<()> {
    let (keep, dropped) = oneshot::channel();
    tokio::spawn(async move {
        if let Err(error) = say(&mut stdin, &first).await {
            tracing::debug!(%error, "a unit does not read its input");
        }
        drop(dropped.await);
    });
    keep
}
