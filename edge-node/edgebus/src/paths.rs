//! Where things are when nobody says: root has the system's folders, others their own.

use std::path::PathBuf;

fn root() -> bool {
    rustix::process::geteuid().is_root()
}

fn env(key: &str) -> Option<PathBuf> {
    std::env::var_os(key)
        .filter(|v| !v.is_empty())
        .map(PathBuf::from)
}

/// What must survive a reboot.
pub fn data_dir() -> PathBuf {
    if root() {
        return "/var/lib/edgebus".into();
    }
    let home = env("HOME").unwrap_or_else(|| "/".into());
    env("XDG_DATA_HOME")
        .unwrap_or_else(|| home.join(".local/share"))
        .join("edgebus")
}

/// Sockets and tokens: a tmpfs where there is one.
pub fn run_dir() -> PathBuf {
    if root() {
        return "/run/edgebus".into();
    }
    env("XDG_RUNTIME_DIR")
        .unwrap_or_else(std::env::temp_dir)
        .join("edgebus")
}

/// Executables dropped here are mappers.
pub fn mappers_dir() -> PathBuf {
    if root() {
        "/etc/edgebus/mappers.d".into()
    } else {
        data_dir().join("mappers.d")
    }
}
