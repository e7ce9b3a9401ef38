//! Whether this machine's network is another one than a moment ago: its routes, read from `/proc` a few times
//! a second while there is no link. A subscription to the kernel's messages would save those reads and cost a
//! dependency.

use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often to look.
pub const LOOK_EVERY: Duration = Duration::from_millis(250);
/// More of a table is not read: a router with thousands of routes has its default route at the top.
const MOST_BYTES: u64 = 64 << 10;
/// Columns of `/proc/net/route` and `/proc/net/ipv6_route` that count packets and users.
const COUNTERS: [usize; 2] = [4, 5];
const COUNTERS_6: [usize; 2] = [6, 7];

/// The routes when they were looked at last.
#[derive(Debug)]
pub struct Network {
    mark: u64,
    looked: Instant,
}

impl Network {
    /// As it is now.
    pub fn new() -> Network {
        Network {
            mark: read_mark(),
            looked: Instant::now(),
        }
    }

    /// When to call [`Network::changed`] next.
    pub fn next_look(&self) -> Instant {
        self.looked + LOOK_EVERY
    }

    /// Whether there are other routes than when this was asked last. Looks at most every [`LOOK_EVERY`].
    pub fn changed(&mut self) -> bool {
        if Instant::now() < self.next_look() {
            return false;
        }
        let before = std::mem::replace(self, Network::new());
        before.mark != self.mark
    }
}

fn read_mark() -> u64 {
    mark(&table("/proc/net/route"), &table("/proc/net/ipv6_route"))
}

/// Empty where there is none: a kernel without IPv6, a container without `/proc`.
fn table(path: impl AsRef<Path>) -> String {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(MOST_BYTES).read_to_end(&mut bytes)) {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}

/// A number for both tables that stands still while only their counters move.
fn mark(routes: &str, routes_6: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (table, counters) in [(routes, COUNTERS), (routes_6, COUNTERS_6)] {
        for line in table.lines() {
            let columns = line.split_whitespace().enumerate();
            for (_, word) in columns.filter(|(at, _)| !counters.contains(at)) {
                word.hash(&mut hasher);
            }
        }
        hasher.write_u8(0);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: &str = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
        eth0\t00000000\t0102A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n";
    const ROUTES_6: &str = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
        fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth0\n";

    #[test]
    fn counters_are_no_change_and_everything_else_is() {
        let now = mark(ROUTES, ROUTES_6);
        for (what, routes, routes_6, changed) in [
            ("nothing", ROUTES.to_owned(), ROUTES_6.to_owned(), false),
            (
                "use",
                ROUTES.replace("0003\t0\t0", "0003\t2\t7"),
                ROUTES_6.to_owned(),
                false,
            ),
            (
                "use, v6",
                ROUTES.to_owned(),
                ROUTES_6.replace("01 00000000 0", "09 000000ff 0"),
                false,
            ),
            (
                "gateway",
                ROUTES.replace("0102A8C0", "0202A8C0"),
                ROUTES_6.to_owned(),
                true,
            ),
            (
                "interface",
                ROUTES.replace("eth0", "wwan0"),
                ROUTES_6.to_owned(),
                true,
            ),
            (
                "gateway, v6",
                ROUTES.to_owned(),
                ROUTES_6.replace("01 00000400", "02 00000400"),
                true,
            ),
            ("no routes", String::new(), ROUTES_6.to_owned(), true),
            (
                "moved between tables",
                ROUTES_6.to_owned(),
                ROUTES.to_owned(),
                true,
            ),
        ] {
            assert_eq!(mark(&routes, &routes_6) != now, changed, "{what}");
        }
    }

    #[test]
    fn a_table_that_is_not_there_is_empty() {
        assert_eq!(table("/proc/net/no-such-table"), "");
        assert!(!table("/proc/net/route").is_empty());
    }
}
