//! Kubernetes' node conditions from what is left of memory, disk and process ids. Pure.

use crate::machine::Figures;

/// What can run short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Memory,
    Disk,
    Pid,
}

impl Kind {
    /// All of them, in kubelet's order.
    pub const ALL: [Kind; 3] = [Kind::Memory, Kind::Disk, Kind::Pid];

    /// `type`, and reason and message when short and when not: kubelet's words.
    pub fn words(self, short: bool) -> [&'static str; 3] {
        match (self, short) {
            (Kind::Memory, false) => [
                "MemoryPressure",
                "KubeletHasSufficientMemory",
                "there is enough memory available",
            ],
            (Kind::Memory, true) => [
                "MemoryPressure",
                "KubeletHasInsufficientMemory",
                "memory is running out",
            ],
            (Kind::Disk, false) => [
                "DiskPressure",
                "KubeletHasNoDiskPressure",
                "there is enough room on the disk",
            ],
            (Kind::Disk, true) => [
                "DiskPressure",
                "KubeletHasDiskPressure",
                "the disk is filling up",
            ],
            (Kind::Pid, false) => [
                "PIDPressure",
                "KubeletHasSufficientPID",
                "there are enough process ids available",
            ],
            (Kind::Pid, true) => [
                "PIDPressure",
                "KubeletHasInsufficientPID",
                "process ids are running out",
            ],
        }
    }

    /// Is it short? Once it is, it stays so until there is a good deal more than the limit, so
    /// that a value beside the limit does not make the condition flap.
    pub fn is_short(self, f: &Figures, was: bool) -> bool {
        // Available and limit of each, in thousandths of the whole.
        let below = |free: u64, total: u64, thousandths: u64| {
            let limit = total / 1000 * thousandths;
            let limit = if was { limit + limit / 2 } else { limit };
            total > 0 && free < limit
        };
        match self {
            // Kubelet's 100 MiB would be half of a small gateway's memory.
            Kind::Memory => {
                let thousandths = (102_400 * 1000 / f.memory_kib.max(1)).clamp(1, 50);
                below(f.memory_free_kib, f.memory_kib, thousandths)
            }
            // Kubelet's defaults: 10 % of the bytes, 5 % of the inodes.
            Kind::Disk => {
                below(f.disk_free_bytes, f.disk_bytes, 100) || below(f.inodes_free, f.inodes, 50)
            }
            Kind::Pid => below(f.pids.saturating_sub(f.pids_used), f.pids, 50),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: Figures = Figures {
        memory_kib: 1_000_000,
        memory_free_kib: 500_000,
        disk_bytes: 1_000_000,
        disk_free_bytes: 500_000,
        inodes: 1_000_000,
        inodes_free: 500_000,
        pids: 10_000,
        pids_used: 100,
    };

    #[test]
    fn each_shortage_is_seen_and_ends_only_well_above_its_limit() {
        let memory = |free| Figures {
            memory_free_kib: free,
            ..FINE
        };
        let disk = |free| Figures {
            disk_free_bytes: free,
            ..FINE
        };
        let inodes = |free| Figures {
            inodes_free: free,
            ..FINE
        };
        let pids = |used| Figures {
            pids_used: used,
            ..FINE
        };
        for (kind, figures, was, is) in [
            (Kind::Memory, FINE, false, false),
            (Kind::Memory, memory(49_000), false, true),
            (Kind::Memory, memory(60_000), false, false),
            (Kind::Memory, memory(60_000), true, true),
            (Kind::Memory, memory(80_000), true, false),
            (Kind::Disk, FINE, false, false),
            (Kind::Disk, disk(99_000), false, true),
            (Kind::Disk, disk(120_000), true, true),
            (Kind::Disk, disk(160_000), true, false),
            (Kind::Disk, inodes(49_000), false, true),
            (Kind::Pid, FINE, false, false),
            (Kind::Pid, pids(9_600), false, true),
        ] {
            assert_eq!(kind.is_short(&figures, was), is, "{kind:?} {figures:?}");
        }
    }

    #[test]
    fn a_file_system_without_inodes_is_not_short_of_them() {
        let figures = Figures {
            inodes: 0,
            inodes_free: 0,
            ..FINE
        };
        assert!(!Kind::Disk.is_short(&figures, false));
    }
}
