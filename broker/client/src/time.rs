//! Times as payloads carry them.

use jiff::{Timestamp, Unit};

/// Now, as RFC 3339 in UTC with exactly three decimals: `2025-01-31T08:00:00.120Z`.
pub fn now_rfc3339_ms() -> String {
    rfc3339_ms(Timestamp::now())
}

/// A time as payloads carry it.
pub fn rfc3339_ms(at: Timestamp) -> String {
    // Rounding to milliseconds cannot leave the range of a clock reading.
    let at = at.round(Unit::Millisecond).unwrap_or(at);
    format!("{at:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_decimals_and_a_z() {
        let text = |t: &str| rfc3339_ms(t.parse().unwrap());
        assert_eq!(text("2025-01-31T08:00:00Z"), "2025-01-31T08:00:00.000Z");
        assert_eq!(
            text("2025-01-31T08:00:00.1204Z"),
            "2025-01-31T08:00:00.120Z"
        );
        assert_eq!(now_rfc3339_ms().len(), 24);
    }
}
