//! The files of a joined node, written so that a crash leaves the old or the new one, never a half.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub const KEY: &str = "node.key";
pub const CERT: &str = "node.crt";
pub const CA: &str = "ca.crt";
pub const SEALING: &str = "sealing.key";
pub const PINNED: &str = "node.json";
/// A renewed pair, until a connection with it has succeeded.
pub const NEXT_KEY: &str = "node.key.new";
pub const NEXT_CERT: &str = "node.crt.new";

/// Events on their way up.
pub const SPOOL: &str = "link.db";
pub const SPOOL_DAMAGED: &str = "link.db.damaged";

/// Everything that belongs to an identity. `PINNED` goes first when they are removed and comes last when they
/// are made.
pub const ALL: [&str; 11] = [
    PINNED,
    KEY,
    CERT,
    CA,
    SEALING,
    NEXT_KEY,
    NEXT_CERT,
    SPOOL,
    "link.db-wal",
    "link.db-shm",
    SPOOL_DAMAGED,
];

/// Largest file that is read from there.
const MAX_BYTES: u64 = 256 << 10;

#[derive(Debug, Error)]
pub enum FilesError {
    #[error("{doing} {path}")]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} has {size} bytes, allowed are {MAX_BYTES}")]
    Size { path: PathBuf, size: u64 },
    #[error("{path} may be read by others (mode {mode:o}); allowed is 600")]
    Open { path: PathBuf, mode: u32 },
    #[error("{path} is not as join wrote it")]
    Json {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
}

impl FilesError {
    /// The file is simply not there.
    pub fn is_missing(&self) -> bool {
        matches!(self, FilesError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    }
}

/// `node.json`: who this node is, and what it holds the cloud to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinned {
    pub node: String,
    /// `host:port` of cloud-bridge.
    pub server: String,
    /// uid of the cluster's kube-system namespace. Another one deletes nothing here.
    pub cluster_id: String,
    pub joined_at: String,
}

fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> FilesError {
    let path = path.to_owned();
    move |source| FilesError::Io {
        doing,
        path,
        source,
    }
}

/// Which of a folder and its parents are not there, the innermost first.
pub fn missing_dirs(dir: &Path) -> Vec<PathBuf> {
    let missing = dir.ancestors().take_while(|dir| !dir.exists());
    missing.map(Path::to_owned).collect()
}

/// Makes the folder if need be, for our user only.
pub fn make_dir(dir: &Path) -> Result<(), FilesError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(io("make the folder", dir))
}

/// Reads a text file of bounded size.
pub fn read(dir: &Path, name: &str) -> Result<String, FilesError> {
    let path = dir.join(name);
    let meta = fs::metadata(&path).map_err(io("read", &path))?;
    if meta.len() > MAX_BYTES {
        return Err(FilesError::Size {
            path,
            size: meta.len(),
        });
    }
    fs::read_to_string(&path).map_err(io("read", &path))
}

/// Reads a private key: refused where others could have read it too.
pub fn read_secret(dir: &Path, name: &str) -> Result<String, FilesError> {
    let path = dir.join(name);
    let mode = fs::metadata(&path)
        .map_err(io("read", &path))?
        .permissions()
        .mode()
        & 0o777;
    if mode & 0o077 != 0 {
        return Err(FilesError::Open { path, mode });
    }
    read(dir, name)
}

/// Writes a file of mode 0600: first beside, then in place, on disk when this returns.
pub fn write(dir: &Path, name: &str, text: &str) -> Result<(), FilesError> {
    let (path, beside) = (dir.join(name), dir.join(format!(".{name}.tmp")));
    remove(dir, &format!(".{name}.tmp"))?;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)
        .map_err(io("write", &beside))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(io("write", &beside))?;
    fs::rename(&beside, &path).map_err(io("rename to", &path))?;
    sync_dir(dir)
}

/// Moves a file over another one.
pub fn rename(dir: &Path, from: &str, to: &str) -> Result<(), FilesError> {
    let to = dir.join(to);
    fs::rename(dir.join(from), &to).map_err(io("rename to", &to))?;
    sync_dir(dir)
}

/// Removes a file; that it is not there is fine.
pub fn remove(dir: &Path, name: &str) -> Result<(), FilesError> {
    let path = dir.join(name);
    match fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io("remove", &path)(e)),
        _ => Ok(()),
    }
}

fn sync_dir(dir: &Path) -> Result<(), FilesError> {
    fs::File::open(dir)
        .and_then(|d| d.sync_all())
        .map_err(io("write", dir))
}

impl Pinned {
    pub fn load(dir: &Path) -> Result<Pinned, FilesError> {
        let text = read(dir, PINNED)?;
        serde_json::from_str(&text).map_err(|source| FilesError::Json {
            path: dir.join(PINNED),
            source,
        })
    }

    pub fn save(&self, dir: &Path) -> Result<(), FilesError> {
        let text = serde_json::to_string_pretty(self).map_err(|source| FilesError::Json {
            path: dir.join(PINNED),
            source,
        })?;
        write(dir, PINNED, &format!("{text}\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_ours_alone_and_refused_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), KEY, "secret").unwrap();
        write(dir.path(), KEY, "secret 2").unwrap();
        assert_eq!(read_secret(dir.path(), KEY).unwrap(), "secret 2");
        let path = dir.path().join(KEY);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            read_secret(dir.path(), KEY),
            Err(FilesError::Open { mode: 0o644, .. })
        ));
    }

    #[test]
    fn a_missing_file_is_told_from_a_bad_one() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Pinned::load(dir.path()).unwrap_err().is_missing());
        write(dir.path(), PINNED, "{}").unwrap();
        let error = Pinned::load(dir.path()).unwrap_err();
        assert!(
            !error.is_missing() && error.to_string().contains("node.json"),
            "{error}"
        );
    }
}
