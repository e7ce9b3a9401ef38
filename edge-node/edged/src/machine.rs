//! What this machine is and how it is, from `/proc`, `/sys`, `/etc` and statvfs.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

/// Why a figure is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MachineError {
    #[error("cannot read {path:?}: {source}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path:?} has no figure {what}")]
    Missing { path: PathBuf, what: &'static str },
}

/// What does not change while a machine runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Facts {
    pub cpus: usize,
    pub memory_kib: u64,
    pub disk_bytes: u64,
    pub address: Option<IpAddr>,
    pub kernel: String,
    pub os_image: String,
    pub machine_id: String,
    pub boot_id: String,
    pub system_uuid: String,
}

/// What is left of what can run out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Figures {
    pub memory_kib: u64,
    pub memory_free_kib: u64,
    pub disk_bytes: u64,
    pub disk_free_bytes: u64,
    pub inodes: u64,
    pub inodes_free: u64,
    pub pids: u64,
    pub pids_used: u64,
}

/// Where to look.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    /// `/`, or a folder that stands for it in tests.
    pub root: PathBuf,
    /// A folder on the file system that pods and the bus write to.
    pub data_dir: PathBuf,
}

impl Machine {
    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn read(&self, path: &str) -> Result<String, MachineError> {
        let path = self.path(path);
        std::fs::read_to_string(&path).map_err(|source| MachineError::Read { path, source })
    }

    /// The text of a file that not every machine has.
    fn text(&self, path: &str) -> Option<String> {
        let text = self.read(path).ok()?;
        // Firmware ends its strings with a NUL.
        let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// What does not change.
    pub fn facts(&self) -> Result<Facts, MachineError> {
        let figures = self.figures()?;
        let machine_id = self.text("/etc/machine-id").unwrap_or_default();
        Ok(Facts {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_kib: figures.memory_kib,
            disk_bytes: figures.disk_bytes,
            address: address(),
            kernel: self.read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            os_image: self
                .text("/etc/os-release")
                .and_then(|t| pretty_name(&t))
                .unwrap_or_else(|| "Linux".into()),
            boot_id: self
                .text("/proc/sys/kernel/random/boot_id")
                .unwrap_or_default(),
            system_uuid: self
                .text("/sys/class/dmi/id/product_uuid")
                .or_else(|| self.text("/proc/device-tree/serial-number"))
                // As kubelet does where the firmware has no name for the machine.
                .unwrap_or_else(|| machine_id.clone()),
            machine_id,
        })
    }

    /// What is left.
    pub fn figures(&self) -> Result<Figures, MachineError> {
        let meminfo = self.read("/proc/meminfo")?;
        let kib = |what: &'static str| {
            field(&meminfo, what).ok_or_else(|| MachineError::Missing {
                path: self.path("/proc/meminfo"),
                what,
            })
        };
        let disk = rustix::fs::statvfs(&self.data_dir).map_err(|e| MachineError::Read {
            path: self.data_dir.clone(),
            source: e.into(),
        })?;
        let number = |path: &str| self.text(path).and_then(|t| t.parse::<u64>().ok());
        let pid_max = number("/proc/sys/kernel/pid_max");
        let threads_max = number("/proc/sys/kernel/threads-max");
        Ok(Figures {
            memory_kib: kib("MemTotal:")?,
            memory_free_kib: kib("MemAvailable:")?,
            disk_bytes: disk.f_blocks.saturating_mul(disk.f_frsize),
            disk_free_bytes: disk.f_bavail.saturating_mul(disk.f_frsize),
            inodes: disk.f_files,
            inodes_free: disk.f_favail,
            pids: pid_max
                .into_iter()
                .chain(threads_max)
                .min()
                .unwrap_or(32_768),
            pids_used: self
                .text("/proc/loadavg")
                .and_then(|t| tasks(&t))
                .unwrap_or_default(),
        })
    }
}

/// `MemTotal:   16384 kB`.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|l| l.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The tasks that exist: the second number of the fourth field of `/proc/loadavg`.
fn tasks(loadavg: &str) -> Option<u64> {
    let field = loadavg.split_whitespace().nth(3)?;
    field.split_once('/')?.1.parse().ok()
}

fn pretty_name(os_release: &str) -> Option<String> {
    let value = os_release
        .lines()
        .find_map(|l| l.strip_prefix("PRETTY_NAME="))?;
    Some(value.trim_matches(['"', '\'']).to_owned())
}

/// The address that this machine has towards the rest of the world: a UDP socket that is
/// "connected" is given one by the routing table, and nothing is sent.
fn address() -> Option<IpAddr> {
    let from = |any: SocketAddr, to: SocketAddr| {
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(to).ok()?;
        let ip = socket.local_addr().ok()?.ip();
        (!ip.is_unspecified()).then_some(ip)
    };
    // Documentation addresses (RFC 5737, RFC 3849): they belong to nobody.
    let v4 = || {
        from(
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::from(([192, 0, 2, 1], 9)),
        )
    };
    let v6 = || {
        from(
            SocketAddr::from(([0u16; 8], 0)),
            SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 9)),
        )
    };
    v4().or_else(v6)
}

/// Kubernetes' (Go's) name of this processor.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        other => other,
    }
}

/// The machine that we run on.
pub(crate) fn here(data_dir: &Path) -> Machine {
    Machine {
        root: "/".into(),
        data_dir: data_dir.to_owned(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A machine of paper.
    pub fn paper(dir: &Path, meminfo: &str) -> Machine {
        for (path, text) in [
            ("proc/meminfo", meminfo),
            ("proc/loadavg", "0.1 0.1 0.1 2/345 9\n"),
            ("proc/sys/kernel/pid_max", "4194304\n"),
            ("proc/sys/kernel/threads-max", "1000\n"),
            ("proc/sys/kernel/osrelease", "6.1.0-test\n"),
            ("proc/device-tree/serial-number", "10000000abcd\0"),
            ("etc/os-release", "ID=debian\nPRETTY_NAME=\"Debian 12\"\n"),
        ] {
            let path = dir.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Machine {
            root: dir.to_owned(),
            data_dir: dir.to_owned(),
        }
    }

    pub const MEMINFO: &str = "MemTotal:  2048000 kB\nMemFree: 1 kB\nMemAvailable: 1024000 kB\n";

    #[test]
    fn facts_and_figures_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let machine = paper(dir.path(), MEMINFO);
        let facts = machine.facts().unwrap();
        assert_eq!(facts.memory_kib, 2_048_000);
        assert_eq!(facts.os_image, "Debian 12");
        assert_eq!(facts.system_uuid, "10000000abcd");
        let figures = machine.figures().unwrap();
        assert_eq!((figures.pids, figures.pids_used), (1000, 345));
        assert!(figures.disk_bytes > 0);
    }

    #[test]
    fn a_missing_figure_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let said = paper(dir.path(), "MemTotal: x kB\n").figures().unwrap_err();
        assert!(said.to_string().contains("MemTotal"), "{said}");
    }

    #[test]
    fn this_machine_can_be_read() {
        let facts = here(Path::new("/")).facts().unwrap();
        assert!(facts.cpus > 0 && facts.memory_kib > 0 && !facts.kernel.is_empty());
    }
}
