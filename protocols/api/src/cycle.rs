//! How often: KubeEdge's cycles, whose unit its code and its documents disagree on, and durations
//! with a unit, which win over them.

/// From here on a cycle is taken for nanoseconds: 10 ms. As milliseconds it would be close to
/// three hours, which KubeEdge's samples, written in nanoseconds, never mean.
pub const NANOSECONDS_FROM: i64 = 10_000_000;
/// What KubeEdge's mappers do where nothing, or 0, is said.
pub const DEFAULT_MS: u64 = 1000;
/// Longest period that is accepted: ten years.
pub const LONGEST_MS: u64 = 10 * 365 * 24 * 3_600_000;

/// A period that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {value:?} is not a period: allowed are 1ms to 87600h, as 500ms, 10s, 1m30s, 2h")]
pub struct BadPeriod {
    /// Which field.
    pub field: &'static str,
    /// What it says.
    pub value: String,
}

/// A cycle in milliseconds; none = never. Nothing said and 0 both mean [`DEFAULT_MS`].
pub fn of_cycle(cycle: Option<i64>) -> Option<u64> {
    match cycle.unwrap_or(0) {
        0 => Some(DEFAULT_MS),
        n if n < 0 => None,
        n if n >= NANOSECONDS_FROM => Some((n as u64 / 1_000_000).min(LONGEST_MS)),
        n => Some(n as u64),
    }
}

/// How often to read: `collectPeriod` if given, else `collectCycle`. None = never by itself.
pub fn collect(period: Option<&str>, cycle: Option<i64>) -> Result<Option<u64>, BadPeriod> {
    match period {
        Some(text) => parse("collectPeriod", text).map(Some),
        None => Ok(of_cycle(cycle)),
    }
}

/// At least how often to report: `reportPeriod` if given, else `reportCycle`. None = on change only,
/// which is also what nothing said means: a report for its own sake helps nobody.
pub fn report(period: Option<&str>, cycle: Option<i64>) -> Result<Option<u64>, BadPeriod> {
    match (period, cycle) {
        (Some(text), _) => parse("reportPeriod", text).map(Some),
        (None, None) => Ok(None),
        (None, some) => Ok(of_cycle(some)),
    }
}

/// Milliseconds of `500ms`, `10s`, `1m30s`, `1.5h`.
pub fn parse(field: &'static str, text: &str) -> Result<u64, BadPeriod> {
    let bad = || BadPeriod {
        field,
        value: text.chars().take(80).collect(),
    };
    let mut rest = text.trim();
    let mut total = 0.0f64;
    if rest.is_empty() || rest.len() > 64 {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(bad)?;
        let number: f64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let unit = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        total += number
            * match &rest[..unit] {
                "ns" => 1e-6,
                "us" | "µs" => 1e-3,
                "ms" => 1.0,
                "s" => 1e3,
                "m" => 60e3,
                "h" => 3600e3,
                _ => return Err(bad()),
            };
        rest = &rest[unit..];
    }
    let ms = total.round();
    if (1.0..=LONGEST_MS as f64).contains(&ms) {
        Ok(ms as u64)
    } else {
        Err(bad())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cycles_are_milliseconds_or_from_ten_million_on_nanoseconds() {
        for (cycle, ms) in [
            (None, Some(1000)),
            (Some(0), Some(1000)),
            (Some(-1), None),
            (Some(1), Some(1)),
            (Some(1000), Some(1000)),
            (Some(9_999_999), Some(9_999_999)),
            (Some(10_000_000), Some(10)),
            (Some(10_000_000_000), Some(10_000)),
            (Some(i64::MAX), Some(9_223_372_036_854)),
            (Some(i64::MIN), None),
        ] {
            let ms = ms.map(|m: u64| m.min(LONGEST_MS));
            assert_eq!(of_cycle(cycle), ms, "{cycle:?}");
        }
    }

    #[test]
    fn a_period_with_a_unit_wins() {
        assert_eq!(collect(Some("500ms"), Some(2000)), Ok(Some(500)));
        assert_eq!(collect(None, Some(2000)), Ok(Some(2000)));
        assert_eq!(collect(None, None), Ok(Some(1000)));
        assert_eq!(report(None, None), Ok(None));
        assert_eq!(report(None, Some(0)), Ok(Some(1000)));
        assert_eq!(report(Some("1m"), None), Ok(Some(60_000)));
    }

    #[test]
    fn periods_are_read_with_their_units() {
        for (text, ms) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("1m30s", 90_000),
            ("1.5h", 5_400_000),
            ("2500us", 3),
            (" 1s ", 1000),
        ] {
            assert_eq!(parse("p", text), Ok(ms), "{text}");
        }
        for bad in [
            "",
            "5",
            "s",
            "5 s",
            "-1s",
            "1d",
            "0s",
            "1.2.3s",
            "99999999h",
            "1e3s",
            "é",
            "1sé",
        ] {
            let said = parse("collectPeriod", bad).unwrap_err().to_string();
            assert!(
                said.contains("collectPeriod") && said.contains("500ms"),
                "{said}"
            );
        }
    }
}
