//! The figures of the README, measured on this machine with real processes on loopback, printed as
//! one Markdown table. Nothing here passes or fails.
//!
//! ```text
//! bench [--only NAME]     memory, latency, recovery, join, publish, sizes
//! ```
//! EDGEBUS_BIN names the executable to measure, EDGEBUS_EDGE_BIN another one for the node. For memory and sizes:
//!
//! ```text
//! cargo build --profile dist
//! cargo build --profile dist --no-default-features --features edge --target-dir target/edge
//! EDGEBUS_BIN=target/dist/edgebus EDGEBUS_EDGE_BIN=target/edge/dist/edgebus bench --only memory
//! ```

mod latency;
mod memory;
mod proxy;
mod publish;
mod recovery;
mod stand;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// A line of the table.
pub struct Row {
    what: String,
    measured: String,
    aim: &'static str,
    kubeedge: &'static str,
}

/// A line without an aim.
pub fn row(what: impl Into<String>, measured: impl Into<String>) -> Row {
    Row {
        what: what.into(),
        measured: measured.into(),
        aim: "",
        kubeedge: "",
    }
}

impl Row {
    /// With what was aimed at, and what KubeEdge measured.
    pub fn against(mut self, aim: &'static str, kubeedge: &'static str) -> Self {
        (self.aim, self.kubeedge) = (aim, kubeedge);
        self
    }
}

/// `p50 / p99` in milliseconds, and how many samples.
pub fn percentiles(mut samples: Vec<Duration>) -> String {
    samples.sort();
    let at = |part: usize| {
        let index = (samples.len() * part).div_ceil(100).saturating_sub(1);
        samples
            .get(index)
            .map_or(f64::NAN, |d| d.as_secs_f64() * 1000.0)
    };
    format!("{:.1} / {:.1} ms (n = {})", at(50), at(99), samples.len())
}

type Measure = fn() -> Vec<Row>;

const ALL: &[(&str, Measure)] = &[
    ("memory", memory::measure),
    ("latency", latency::measure),
    ("recovery", recovery::measure),
    ("join", recovery::join),
    ("publish", publish::measure),
    ("sizes", sizes),
];

fn sizes() -> Vec<Row> {
    use edgebus_tests::run::{edge_edgebus, edgebus};
    [
        ("the one executable, edge and cloud", edgebus()),
        ("the executable of the node", edge_edgebus()),
    ]
    .map(|(what, exe)| {
        let bytes = std::fs::metadata(&exe).map_or(0, |m| m.len());
        row(what, format!("{:.1} MB", bytes as f64 / 1e6))
    })
    .into()
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .map_or("", |l| l.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = read("/proc/loadavg")
        .split(' ')
        .next()
        .unwrap_or_default()
        .to_owned();
    format!(
        "{cores} cores ({model}), Linux {}, load {load} at the start",
        read("/proc/sys/kernel/osrelease").trim()
    )
}

/// What every durable step waits for on this disk.
fn fsync() -> std::io::Result<String> {
    let mut file = tempfile::tempfile()?;
    let mut samples = Vec::new();
    for _ in 0..100 {
        let begun = Instant::now();
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        samples.push(begun.elapsed());
    }
    Ok(percentiles(samples))
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let only = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => None,
        ["--only", name] if ALL.iter().any(|(n, _)| *n == name) => Some(name.to_owned()),
        _ => {
            let names: Vec<_> = ALL.iter().map(|(n, _)| *n).collect();
            eprintln!(
                "usage: bench [--only NAME], NAME one of {}",
                names.join(", ")
            );
            return ExitCode::from(64);
        }
    };
    println!("{}\n{}", machine(), edgebus_tests::run::edgebus().display());
    println!(
        "fsync of 4 kB, p50 / p99: {}",
        fsync().unwrap_or_else(|e| format!("failed: {e}"))
    );
    let mut rows = Vec::new();
    for (name, measure) in ALL {
        if only.as_deref().is_none_or(|o| o == *name) {
            let begun = Instant::now();
            rows.extend(measure());
            eprintln!("{name}: took {:.0} s", begun.elapsed().as_secs_f64());
        }
    }
    println!("\n| Figure | Measured | Aim | KubeEdge |\n|---|---|---|---|");
    for Row {
        what,
        measured,
        aim,
        kubeedge,
    } in rows
    {
        println!("| {what} | {measured} | {aim} | {kubeedge} |");
    }
    ExitCode::SUCCESS
}
