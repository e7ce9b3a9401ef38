//! What a warden that was killed has left running. Our own units end with their standard input;
//! a mapper in shell may not, and two copies of one mapper would write a register twice. So they
//! are ended before anything is started: those recorded in `units.json` by pid and start time, and
//! whatever carries our run_dir in its environment.

use crate::board::NodeState;
use crate::child;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Environment variable that marks all processes below a warden, and nothing else: people set
/// `EDGEBUS_RUN_DIR` in their shells, nobody sets this.
pub(crate) const MARK: &str = "EDGEBUS_UNIT_OF";

/// Ends what the last warden on this run_dir left behind.
pub(crate) async fn end(state_file: &Path, run_dir: &Path) {
    let mut groups = BTreeSet::new();
    if let Ok(state) = NodeState::load(state_file)
        && state.boot_id == child::boot_id()
    {
        for unit in state.units.values() {
            if let (Some(pid), Some(ticks)) = (unit.pid, unit.started_ticks)
                && child::stat(pid).is_some_and(|s| s.started_ticks == ticks && s.state != 'Z')
            {
                groups.insert(pid);
            }
        }
    }
    groups.extend(marked(run_dir));
    if groups.is_empty() {
        return;
    }
    let groups: Vec<_> = groups.into_iter().collect();
    tracing::warn!(?groups, "ending what an earlier `edgebus node` left behind");
    child::end_strangers(&groups).await;
}

/// Process groups with a member that carries our mark.
fn marked(run_dir: &Path) -> BTreeSet<u32> {
    let mark = format!("{MARK}={}", run_dir.display());
    let us = child::stat(std::process::id()).map(|s| s.group);
    let mut out = BTreeSet::new();
    let Ok(all) = fs::read_dir("/proc") else {
        return out;
    };
    for entry in all.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        // Unreadable for processes of others, which are none of ours.
        let Ok(environ) = fs::read(format!("/proc/{pid}/environ")) else {
            continue;
        };
        let is_marked = environ.split(|b| *b == 0).any(|v| v == mark.as_bytes());
        if is_marked
            && let Some(stat) = child::stat(pid)
            && Some(stat.group) != us
            && stat.state != 'Z'
        {
            out.insert(stat.group);
        }
    }
    out
}
