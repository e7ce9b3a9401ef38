//! `E/link`: how the link is, said when it changes, and its figures now and then.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use edgebus_bus::payload::{LinkState, LinkUp, Spool};
use edgebus_client::{now_rfc3339_ms, rfc3339_ms};
use jiff::Timestamp;

/// Figures alone are not worth more.
const FIGURES_EVERY: Duration = Duration::from_secs(2);

/// What is known, and what was said of it.
#[derive(Debug)]
pub struct Board {
    state: LinkUp,
    since: String,
    why: Option<String>,
    rtt_ms: Option<u64>,
    cert_until: Option<Timestamp>,
    synced: BTreeSet<String>,
    spool: Spool,
    said: Option<LinkState>,
    said_at: Option<Instant>,
}

impl Board {
    pub fn new() -> Board {
        Board {
            state: LinkUp::Down,
            since: now_rfc3339_ms(),
            why: Some("starting".into()),
            rtt_ms: None,
            cert_until: None,
            synced: BTreeSet::new(),
            spool: Spool::default(),
            said: None,
            said_at: None,
        }
    }

    /// What the broker says of a link that ends without a word. It cannot say when that was: `since` is when it
    /// last had one.
    pub fn will() -> LinkState {
        let mut board = Board::new();
        board.why = Some("link ended without a word, some time after that".into());
        board.current()
    }

    /// What was said may have been overwritten by the will.
    pub fn repeat(&mut self) {
        self.said = None;
    }

    /// True if that is news.
    pub fn set(&mut self, state: LinkUp, why: Option<String>) -> bool {
        let news = self.state != state || self.why != why;
        if self.state != state {
            self.since = now_rfc3339_ms();
        }
        self.state = state;
        self.why = why;
        if state != LinkUp::Up {
            self.rtt_ms = None;
        }
        news
    }

    pub fn rtt(&mut self, ms: u64) {
        self.rtt_ms = Some(ms);
    }

    pub fn cert(&mut self, until: Option<Timestamp>) {
        self.cert_until = until;
    }

    pub fn synced(&mut self, kind: &str) {
        self.synced.insert(kind.to_owned());
    }

    /// Which kinds were compared, after the store was read anew.
    pub fn all_synced(&mut self, kinds: impl IntoIterator<Item = String>) {
        self.synced = kinds.into_iter().collect();
    }

    pub fn spool(&mut self, totals: Spool) {
        self.spool = totals;
    }

    fn current(&self) -> LinkState {
        LinkState {
            state: self.state,
            since: self.since.clone(),
            // Milliseconds are what the clock of the protocol gives.
            rtt_ms: self
                .rtt_ms
                .and_then(|ms| u32::try_from(ms).ok())
                .map(f64::from),
            spool: self.spool.clone(),
            cert_until: self.cert_until.map(rfc3339_ms),
            synced: self.synced.iter().cloned().collect(),
            why: self.why.clone(),
        }
    }

    /// What is to be said now, if anything.
    pub fn news(&mut self, now: Instant) -> Option<LinkState> {
        let current = self.current();
        if let (Some(said), Some(at)) = (&self.said, self.said_at) {
            if *said == current {
                return None;
            }
            let figures = LinkState {
                rtt_ms: said.rtt_ms,
                spool: said.spool.clone(),
                ..current.clone()
            };
            if *said == figures && now.duration_since(at) < FIGURES_EVERY {
                return None;
            }
        }
        self.said = Some(current.clone());
        self.said_at = Some(now);
        Some(current)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_said_at_once_and_figures_now_and_then() {
        let mut board = Board::new();
        let start = Instant::now();
        assert_eq!(board.news(start).unwrap().state, LinkUp::Down);
        assert!(board.news(start).is_none());
        assert!(board.set(LinkUp::Up, None));
        assert!(!board.set(LinkUp::Up, None));
        assert_eq!(board.news(start).unwrap().why, None);
        board.rtt(3);
        board.spool(Spool {
            rows: 1,
            ..Spool::default()
        });
        assert!(board.news(start).is_none());
        let later = board.news(start + FIGURES_EVERY).unwrap();
        assert_eq!((later.rtt_ms, later.spool.rows), (Some(3.0), 1));
        board.synced("device");
        assert_eq!(
            board.news(start + FIGURES_EVERY).unwrap().synced,
            ["device"]
        );
        assert!(board.set(LinkUp::Refused, Some("cluster changed".into())));
        let refused = board.news(start + FIGURES_EVERY).unwrap();
        assert_eq!(
            (refused.rtt_ms, refused.why.as_deref()),
            (None, Some("cluster changed"))
        );
    }
}
