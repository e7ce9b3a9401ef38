//! Times: milliseconds since 1970 inside, RFC 3339 in UTC with milliseconds outside.

use jiff::Timestamp;

/// The present moment, told by the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now(pub i64);

impl Now {
    /// From the system's clock.
    pub fn read() -> Self {
        Self(Timestamp::now().as_millisecond())
    }
    /// As payloads carry it.
    pub fn text(self) -> String {
        text(self.0)
    }
}

/// Milliseconds as payloads carry them. Out of range is the nearest time that is not.
pub fn text(ms: i64) -> String {
    let at = Timestamp::from_millisecond(ms).unwrap_or(if ms < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    });
    format!("{at:.3}")
}

/// Milliseconds of an RFC 3339 time.
pub fn millis(text: &str) -> Option<i64> {
    text.parse::<Timestamp>().ok().map(|t| t.as_millisecond())
}

/// Is it a time at which a device can have said something?
pub fn is_plausible(ms: i64) -> bool {
    // 2000-01-01 to 2200-01-01: a clock that was never set says nothing.
    (946_684_800_000..7_258_118_400_000).contains(&ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_milliseconds_and_read_back() {
        assert_eq!(text(1_700_000_000_000), "2023-11-14T22:13:20.000Z");
        assert_eq!(millis("2023-11-14T22:13:20.000Z"), Some(1_700_000_000_000));
        assert_eq!(millis("soon"), None);
        assert!(!text(i64::MAX).is_empty());
        assert!(is_plausible(1_700_000_000_000) && !is_plausible(0));
    }
}
