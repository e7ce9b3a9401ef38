//! Whether a file in `mappers.d/` may be run, and what it says of itself.

use crate::child;
use edgebus_bus::unit::Describe;
use rustix::process::geteuid;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::timeout;

/// How long `describe` may take.
const TIME: Duration = Duration::from_secs(2);
/// Longest answer.
const BYTES: u64 = 64 * 1024;
/// Version of the mapper contract that this warden knows.
const API: u32 = 1;

/// Why a file is not started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DescribeError {
    #[error("{0:?} belongs to uid {1}: it must belong to root or to the user that runs the node")]
    Owner(PathBuf, u32),
    #[error("{0:?} may be written by everybody (mode {1:o}): chmod o-w it")]
    Writable(PathBuf, u32),
    #[error("{0:?} cannot be read: {1}")]
    Unreadable(PathBuf, #[source] io::Error),
    #[error("`{0} describe` could not be started: {1}")]
    Start(PathBuf, #[source] io::Error),
    #[error("`{0} describe` took longer than {TIME:?}")]
    Slow(PathBuf),
    #[error("`{0} describe` failed ({1})")]
    Failed(PathBuf, std::process::ExitStatus),
    #[error(
        "`{0} describe` must print one JSON object such as {{\"protocol\":\"modbus\",\"version\":\"1.0\",\"api\":1}}: {1}"
    )]
    NotJson(PathBuf, #[source] serde_json::Error),
    #[error("`{0} describe` says api {1}: this node knows api {API}")]
    Api(PathBuf, u32),
    #[error("`{0} describe` gives no protocol")]
    NoProtocol(PathBuf),
}

impl DescribeError {
    /// Could it be otherwise next time, with the same file?
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            DescribeError::Start(..) | DescribeError::Slow(_) | DescribeError::Failed(..)
        )
    }
}

/// May this file be run? The file itself, where a symlink leads, and the folders of both.
pub(crate) fn check_owner(path: &Path) -> Result<(), DescribeError> {
    let unreadable = |e| DescribeError::Unreadable(path.to_owned(), e);
    let real = path.canonicalize().map_err(unreadable)?;
    let us = geteuid().as_raw();
    let mut checked = vec![path, real.as_path()];
    checked.extend([path.parent(), real.parent()].into_iter().flatten());
    for one in checked {
        let meta = fs::symlink_metadata(one).map_err(unreadable)?;
        if meta.uid() != 0 && meta.uid() != us {
            return Err(DescribeError::Owner(one.to_owned(), meta.uid()));
        }
        // A symlink's own mode means nothing; a sticky folder lets nobody replace our files.
        let sticky = meta.is_dir() && meta.mode() & 0o1000 != 0;
        if !meta.is_symlink() && !sticky && meta.mode() & 0o002 != 0 {
            return Err(DescribeError::Writable(
                one.to_owned(),
                meta.mode() & 0o7777,
            ));
        }
    }
    Ok(())
}

/// Checks the file and asks it.
pub(crate) async fn describe(path: &Path) -> Result<Describe, DescribeError> {
    check_owner(path)?;
    let own = || path.to_owned();
    let mut child = Command::new(path)
        .arg("describe")
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| DescribeError::Start(own(), e))?;
    let group = child.id();
    let mut output = child.stdout.take();
    let exchange = async {
        let mut text = Vec::new();
        if let Some(output) = &mut output {
            output.take(BYTES).read_to_end(&mut text).await?;
        }
        Ok((text, child.wait().await?))
    };
    let outcome = timeout(TIME, exchange).await;
    if outcome.is_err()
        && let Some(group) = group
    {
        child::end_strangers(&[group]).await;
    }
    let (text, status) = outcome
        .map_err(|_| DescribeError::Slow(own()))?
        .map_err(|e| DescribeError::Start(own(), e))?;
    if !status.success() {
        return Err(DescribeError::Failed(own(), status));
    }
    let said: Describe =
        serde_json::from_slice(&text).map_err(|e| DescribeError::NotJson(own(), e))?;
    if said.api != API {
        return Err(DescribeError::Api(own(), said.api));
    }
    if said.protocol.is_empty() {
        return Err(DescribeError::NoProtocol(own()));
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn script(dir: &Path, body: &str, mode: u32) -> PathBuf {
        let path = dir.join("m");
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    async fn said(body: &str, mode: u32) -> Result<Describe, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = script(dir.path(), body, mode);
        describe(&path).await.map_err(|e| e.to_string())
    }

    #[tokio::test]
    async fn a_script_describes_itself_in_an_empty_environment() {
        let body = r#"test -z "$HOME" && test "$1" = describe && echo '{"protocol":"thermo","api":1,"more":2}'"#;
        assert_eq!(said(body, 0o755).await.unwrap().protocol, "thermo");
    }

    #[tokio::test]
    async fn what_cannot_be_a_mapper_is_told_why() {
        let ok = r#"echo '{"protocol":"x","api":1}'"#;
        for (body, mode, words) in [
            (ok, 0o757, "written by everybody"),
            ("echo hello", 0o755, "JSON object"),
            (r#"echo '{"protocol":"x","api":9}'"#, 0o755, "api 9"),
            (r#"echo '{"protocol":"","api":1}'"#, 0o755, "no protocol"),
            ("exit 3", 0o755, "failed"),
            ("sleep 30", 0o755, "longer than"),
        ] {
            let error = said(body, mode).await.unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
