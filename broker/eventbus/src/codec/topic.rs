//! Topic names and filters (4.7, 4.8.2): what is valid and what matches what.

/// The longest name or filter: it must fit a length-prefixed string.
const MAX_BYTES: usize = 65_535;

/// Whether a PUBLISH may carry this topic name: not empty, no wildcard, no U+0000.
pub fn valid_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_BYTES && !name.contains(['+', '#', '\0'])
}

/// Whether a SUBSCRIBE may carry this filter. `#` stands alone and last, `+` alone in its
/// level. A filter that starts with `$share/` must be a whole shared subscription.
pub fn valid_filter(filter: &str) -> bool {
    if filter.len() > MAX_BYTES {
        return false;
    }
    if is_shared(filter) {
        return shared(filter).is_some();
    }
    valid_plain_filter(filter)
}

fn valid_plain_filter(filter: &str) -> bool {
    if filter.is_empty() || filter.contains('\0') {
        return false;
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let last = levels.peek().is_none();
        let fine = match level {
            "+" => true,
            "#" => last,
            _ => !level.contains(['+', '#']),
        };
        if !fine {
            return false;
        }
    }
    true
}

/// Whether the filter asks for a shared subscription, well-formed or not.
pub fn is_shared(filter: &str) -> bool {
    filter == "$share" || filter.starts_with("$share/")
}

/// Splits `$share/{group}/{filter}` into group and filter; `None` if the filter is not shared,
/// or malformed: the group has at least one character and no wildcard, the filter is valid.
pub fn shared(filter: &str) -> Option<(&str, &str)> {
    let (group, inner) = filter.strip_prefix("$share/")?.split_once('/')?;
    (!group.is_empty() && !group.contains(['+', '#', '\0']) && valid_plain_filter(inner))
        .then_some((group, inner))
}

/// Whether a valid filter (without `$share/…/`) matches a valid name. Wildcards in the first
/// level do not match names that start with `$`.
pub fn matches(filter: &str, name: &str) -> bool {
    if name.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut name_levels = name.split('/');
    for level in filter.split('/') {
        if level == "#" {
            return true;
        }
        match name_levels.next() {
            Some(_) if level == "+" => {}
            Some(n) if n == level => {}
            _ => return false,
        }
    }
    name_levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["a", "/", "a/b", "a//b", "é/x", "$SYS/x", " ", "a b", "/a/"] {
            assert!(valid_name(good), "{good:?}");
        }
        for bad in ["", "+", "#", "a/+", "a/#", "a+", "a\0b", "sport/tennis#"] {
            assert!(!valid_name(bad), "{bad:?}");
        }
        assert!(valid_name(&"a".repeat(65_535)));
        assert!(!valid_name(&"a".repeat(65_536)));
    }

    #[test]
    fn filters_are_checked() {
        for good in [
            "#", "+", "/", "a", "a/#", "+/+", "/+", "a/+/b", "+/a/#", "$SYS/#", "é/+", "//",
        ] {
            assert!(valid_filter(good), "{good:?}");
        }
        for bad in [
            "", "a#", "a/#/b", "#/", "##", "a+", "+a", "a/b+/c", "a/++", "a\0", "a/#b",
        ] {
            assert!(!valid_filter(bad), "{bad:?}");
        }
    }

    #[test]
    fn shared_filters_are_parsed() {
        assert_eq!(shared("$share/g/a/+"), Some(("g", "a/+")));
        assert_eq!(shared("$share/g//"), Some(("g", "/")));
        assert_eq!(shared("$share/g/#"), Some(("g", "#")));
        assert_eq!(shared("a/b"), None);
        for bad in [
            "$share",
            "$share/",
            "$share/g",
            "$share/g/",
            "$share//a",
            "$share/+/a",
            "$share/g#/a",
            "$share/g/a#",
        ] {
            assert!(is_shared(bad), "{bad:?}");
            assert!(!valid_filter(bad), "{bad:?}");
        }
        assert!(valid_filter("$shared/a"));
    }

    #[test]
    fn matching_follows_the_specification() {
        for (filter, name) in [
            ("sport/tennis/player1/#", "sport/tennis/player1"),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking"),
            (
                "sport/tennis/player1/#",
                "sport/tennis/player1/score/wimbledon",
            ),
            ("sport/#", "sport"),
            ("#", "a/b/c"),
            ("#", "/"),
            ("sport/tennis/+", "sport/tennis/player1"),
            ("sport/+", "sport/"),
            ("+/+", "/finance"),
            ("/+", "/finance"),
            ("+", "é"),
            ("$SYS/#", "$SYS/broker"),
            ("$SYS/+/x", "$SYS/a/x"),
            ("a/+/$b", "a/x/$b"),
            ("+/$x", "a/$x"),
        ] {
            assert!(matches(filter, name), "{filter} {name}");
        }
        for (filter, name) in [
            ("sport/tennis/+", "sport/tennis/player1/ranking"),
            ("sport/+", "sport"),
            ("+", "/finance"),
            ("#", "$SYS/x"),
            ("+/x", "$SYS/x"),
            ("a", "A"),
            ("a", "/a"),
            ("a/b", "a"),
            ("a", "a/b"),
            ("a/+/c", "a/c"),
        ] {
            assert!(!matches(filter, name), "{filter} {name}");
        }
    }
}
