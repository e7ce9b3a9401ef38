//! MQTT topic names and filters (MQTT 5.0 §4.7): validity, matching, overlap.

use crate::limits;

/// What is wrong with a topic name or filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Zero-length names and filters are forbidden (MQTT-4.7.3-1).
    #[error("it is empty")]
    Empty,
    /// Longer than [`limits::TOPIC_BYTES`].
    #[error("it is longer than {} bytes", limits::TOPIC_BYTES)]
    TooLong,
    /// More levels than [`limits::TOPIC_LEVELS`].
    #[error("it has more than {} levels", limits::TOPIC_LEVELS)]
    TooDeep,
    /// U+0000 (MQTT-4.7.3-2).
    #[error("it contains U+0000")]
    Nul,
    /// A wildcard in a topic name (MQTT-3.3.2-2).
    #[error("a topic name cannot contain '+' or '#'")]
    WildcardInName,
    /// `#` not alone in the last level (MQTT-4.7.1-1).
    #[error("'#' must be the whole last level")]
    Hash,
    /// `+` not alone in its level (MQTT-4.7.1-2).
    #[error("'+' must be a whole level")]
    Plus,
}

fn common(text: &str) -> Result<(), FilterError> {
    if text.is_empty() {
        return Err(FilterError::Empty);
    }
    if text.len() > limits::TOPIC_BYTES {
        return Err(FilterError::TooLong);
    }
    if text.bytes().filter(|b| *b == b'/').count() >= limits::TOPIC_LEVELS {
        return Err(FilterError::TooDeep);
    }
    if text.contains('\0') {
        Err(FilterError::Nul)
    } else {
        Ok(())
    }
}

/// Is `name` a topic that can be published to?
pub fn check_name(name: &str) -> Result<(), FilterError> {
    common(name)?;
    if name.contains(['+', '#']) {
        Err(FilterError::WildcardInName)
    } else {
        Ok(())
    }
}

/// Is `filter` one that can be subscribed to? (Shared subscriptions: pass the part after the group.)
pub fn check_filter(filter: &str) -> Result<(), FilterError> {
    common(filter)?;
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        if level.contains('#') && (level != "#" || levels.peek().is_some()) {
            return Err(FilterError::Hash);
        }
        if level.contains('+') && level != "+" {
            return Err(FilterError::Plus);
        }
    }
    Ok(())
}

/// Does `filter` match `name`? A leading wildcard never matches a `$` topic (MQTT-4.7.2-1).
pub fn matches(filter: &str, name: &str) -> bool {
    if name.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut names = name.split('/');
    for level in filter.split('/') {
        if level == "#" {
            return true;
        }
        match names.next() {
            Some(n) if level == "+" || level == n => {}
            _ => return false,
        }
    }
    names.next().is_none()
}

/// Can some topic match both filters?
pub fn overlap(a: &str, b: &str) -> bool {
    let dollar = |f: &str| f.starts_with('$');
    let wild = |f: &str| f.starts_with(['+', '#']);
    if (dollar(a) && wild(b)) || (dollar(b) && wild(a)) {
        return false;
    }
    let (mut a, mut b) = (a.split('/'), b.split('/'));
    loop {
        match (a.next(), b.next()) {
            (None, None) | (Some("#"), _) | (_, Some("#")) => return true,
            (Some(x), Some(y)) if x == y || x == "+" || y == "+" => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matching_follows_section_4_7() {
        for (filter, name, is) in [
            ("sport/#", "sport", true),
            ("sport/#", "sport/tennis/1", true),
            ("#", "a/b", true),
            ("#", "$SYS/x", false),
            ("+/x", "$SYS/x", false),
            ("$SYS/#", "$SYS/x", true),
            ("+", "/a", false),
            ("+/+", "/a", true),
            ("/+", "/a", true),
            ("a/+/c", "a/b/c", true),
            ("a/+/c", "a//c", true),
            ("a/+", "a", false),
            ("a/b", "a/b/c", false),
            ("é/+", "é/x", true),
        ] {
            assert_eq!(matches(filter, name), is, "{filter} {name}");
        }
    }

    #[test]
    fn malformed_filters_and_names_are_refused() {
        for bad in ["", "a/#/b", "a#", "a+/b", "#/", "a/b#", "x\0"] {
            assert!(check_filter(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "a/+", "#", "x\0"] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        assert_eq!(check_name(&"a/".repeat(40)), Err(FilterError::TooDeep));
    }

    #[test]
    fn overlap_is_what_some_topic_could_match() {
        for (a, b, is) in [
            ("edge/#", "edge/v1/obj/+/+/+", true),
            ("edge/v1/sealed/#", "edge/v1/obj/#", false),
            ("+/v1/x", "edge/+/x", true),
            ("#", "$hw/#", false),
            ("a/+", "a", false),
            ("a/#", "a", true),
        ] {
            assert_eq!(overlap(a, b), is, "{a} {b}");
            assert_eq!(overlap(b, a), is, "{b} {a}");
        }
    }
}
