//! Points in time as Kubernetes writes them.

use jiff::Timestamp;

/// Now, in whole seconds: `2026-11-23T19:10:56Z` (`metav1.Time`).
pub fn now() -> String {
    seconds(Timestamp::now())
}

pub fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

pub fn parse(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// The age of something, as kubectl prints it: `42s`, `3m10s`, `5h`, `2d4h`, `3y12d`.
pub fn human_age(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let with = |whole: i64, unit: &str, rest: i64, small: &str| match rest {
        0 => format!("{whole}{unit}"),
        rest => format!("{whole}{unit}{rest}{small}"),
    };
    if seconds < 120 {
        format!("{seconds}s")
    } else if minutes < 10 {
        with(minutes, "m", seconds % 60, "s")
    } else if minutes < 180 {
        format!("{minutes}m")
    } else if hours < 8 {
        with(hours, "h", minutes % 60, "m")
    } else if hours < 48 {
        format!("{hours}h")
    } else if hours < 192 {
        with(days, "d", hours % 24, "h")
    } else if days < 365 * 2 {
        format!("{days}d")
    } else if days < 365 * 8 {
        with(days / 365, "y", days % 365, "d")
    } else {
        format!("{}y", days / 365)
    }
}

/// `human_age` of a timestamp in an object; `<unknown>` if there is none.
pub fn age_of(text: Option<&str>) -> String {
    match text.and_then(parse) {
        Some(at) => human_age(Timestamp::now().as_second() - at.as_second()),
        None => "<unknown>".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_kubectl_prints_them() {
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (190, "3m10s"),
            (3600, "60m"),
            (10_800, "3h"),
            (86_400 * 2, "2d"),
            (86_400 * 3 + 7200, "3d2h"),
            (86_400 * 400, "400d"),
            (86_400 * 365 * 3, "3y"),
        ] {
            assert_eq!(human_age(seconds), text);
        }
    }

    #[test]
    fn times_have_whole_seconds_or_six_digits() {
        let at = parse("2026-11-23T19:10:56.1234567Z").unwrap();
        assert_eq!(seconds(at), "2026-11-23T19:10:56Z");
    }
}
