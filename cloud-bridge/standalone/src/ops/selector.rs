//! Label and field selectors: parsed once, matched against many objects.

use super::names::{qualified, word};
use crate::error::{ApiError, Result};
use crate::meta::{array, strings, text};
use crate::store::Packed;
use serde_json::Value;
use std::fmt;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Missing,
    Greater(i64),
    Less(i64),
}

/// A label selector: every requirement must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    requirements: Vec<(String, Test)>,
}

fn bad(text: &str, why: &str) -> ApiError {
    ApiError::bad_request(format!("unable to parse requirement: {why} in {text:?}"))
}

impl Labels {
    pub fn parse(text: &str) -> Result<Labels> {
        let mut requirements = Vec::new();
        for part in split_outside_brackets(text) {
            let part = part.trim();
            if !part.is_empty() {
                requirements.push(requirement(part)?);
            }
        }
        Ok(Labels { requirements })
    }

    /// From a LabelSelector inside an object (`matchLabels`, `matchExpressions`).
    pub fn of_selector(selector: &Value) -> Result<Labels> {
        let mut requirements = Vec::new();
        let equal = selector["matchLabels"].as_object();
        for (key, value) in equal.into_iter().flatten() {
            let value = label_value(value.as_str().unwrap_or(""), key)?;
            requirements.push((label_key(key, key)?, Test::In(vec![value])));
        }
        for expression in array(selector, "/matchExpressions") {
            let key = text(expression, "/key");
            let values = strings(expression.get("values"))
                .into_iter()
                .map(|value| label_value(value, key))
                .collect::<Result<Vec<_>>>()?;
            let test = match (text(expression, "/operator"), values.is_empty()) {
                ("In", false) => Test::In(values),
                ("NotIn", false) => Test::NotIn(values),
                ("Exists", true) => Test::Exists,
                ("DoesNotExist", true) => Test::Missing,
                _ => {
                    return Err(bad(
                        &expression.to_string(),
                        "allowed are In and NotIn with values, Exists and DoesNotExist without",
                    ));
                }
            };
            requirements.push((label_key(key, key)?, test));
        }
        Ok(Labels { requirements })
    }

    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    pub fn matches(&self, object: &Packed) -> bool {
        self.is_empty()
            || self.match_labels(&object.find(["metadata", "labels"]).unwrap_or_default())
    }

    /// As [`Labels::matches`], of the labels alone.
    pub fn match_labels(&self, labels: &Value) -> bool {
        self.requirements.iter().all(|(key, test)| {
            let value = labels.get(key).and_then(Value::as_str);
            match (test, value) {
                (Test::In(allowed), Some(v)) => allowed.iter().any(|a| a == v),
                (Test::NotIn(refused), Some(v)) => !refused.iter().any(|a| a == v),
                (Test::NotIn(_) | Test::Missing, None) | (Test::Exists, Some(_)) => true,
                (Test::Greater(than), Some(v)) => v.parse::<i64>().is_ok_and(|v| v > *than),
                (Test::Less(than), Some(v)) => v.parse::<i64>().is_ok_and(|v| v < *than),
                _ => false,
            }
        })
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (key, test)) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            match test {
                Test::In(values) if values.len() == 1 => write!(f, "{key}={}", values[0])?,
                Test::In(values) => write!(f, "{key} in ({})", values.join(","))?,
                Test::NotIn(values) => write!(f, "{key} notin ({})", values.join(","))?,
                Test::Exists => f.write_str(key)?,
                Test::Missing => write!(f, "!{key}")?,
                Test::Greater(than) => write!(f, "{key}>{than}")?,
                Test::Less(than) => write!(f, "{key}<{than}")?,
            }
        }
        Ok(())
    }
}

fn split_outside_brackets(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0usize, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn requirement(part: &str) -> Result<(String, Test)> {
    if let Some(key) = part.strip_prefix('!') {
        return Ok((label_key(key.trim(), part)?, Test::Missing));
    }
    if let Some((left, list)) = part.split_once('(') {
        let list = list
            .strip_suffix(')')
            .ok_or_else(|| bad(part, "missing ')'"))?;
        let values = list
            .split(',')
            .map(|v| label_value(v.trim(), part))
            .collect::<Result<Vec<_>>>()?;
        let mut words = left.split_whitespace();
        let key = label_key(words.next().unwrap_or(""), part)?;
        return match (words.next(), words.next()) {
            (Some("in"), None) => Ok((key, Test::In(values))),
            (Some("notin"), None) => Ok((key, Test::NotIn(values))),
            _ => Err(bad(part, "expected 'in' or 'notin' before '('")),
        };
    }
    let number = |text: &str| {
        text.trim().parse().map_err(|_| {
            bad(
                part,
                "for 'Gt', 'Lt' operators, the value must be an integer",
            )
        })
    };
    for operator in ["!=", "==", "=", ">", "<"] {
        let Some((key, value)) = part.split_once(operator) else {
            continue;
        };
        let key = label_key(key.trim(), part)?;
        return Ok(match operator {
            "!=" => (key, Test::NotIn(vec![label_value(value.trim(), part)?])),
            ">" => (key, Test::Greater(number(value)?)),
            "<" => (key, Test::Less(number(value)?)),
            _ => (key, Test::In(vec![label_value(value.trim(), part)?])),
        });
    }
    Ok((label_key(part, part)?, Test::Exists))
}

fn label_key(key: &str, part: &str) -> Result<String> {
    match qualified(key) {
        true => Ok(key.to_owned()),
        false => Err(bad(part, &format!("invalid label key {key:?}"))),
    }
}

fn label_value(value: &str, part: &str) -> Result<String> {
    match value.is_empty() || word(value) {
        true => Ok(value.to_owned()),
        false => Err(bad(part, &format!("invalid label value {value:?}"))),
    }
}

/// A field selector: `metadata.name=web,status.phase!=Failed`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    requirements: Vec<(String, bool, String)>,
}

impl Fields {
    /// `allowed` are the labels this kind supports beside `metadata.name` and `.namespace`.
    pub fn parse(text: &str, allowed: &[String]) -> Result<Fields> {
        let mut requirements = Vec::new();
        for part in split_unescaped(text) {
            if part.is_empty() {
                continue;
            }
            let (key, equal, value) = if let Some((k, v)) = part.split_once("!=") {
                (k, false, v)
            } else if let Some((k, v)) = part.split_once("==") {
                (k, true, v)
            } else if let Some((k, v)) = part.split_once('=') {
                (k, true, v)
            } else {
                return Err(ApiError::bad_request(format!(
                    "invalid selector: '{text}'; can't understand '{part}'"
                )));
            };
            let key = key.trim();
            if !matches!(key, "metadata.name" | "metadata.namespace")
                && !allowed.iter().any(|a| a == key)
            {
                return Err(ApiError::bad_request(format!(
                    "field label not supported: {key}"
                )));
            }
            let value = value.replace("\\,", ",").replace("\\=", "=");
            requirements.push((stored_name(key), equal, value.replace("\\\\", "\\")));
        }
        Ok(Fields { requirements })
    }

    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// The name that every match must have, if the selector says one.
    pub fn name(&self) -> Option<&str> {
        self.requirements
            .iter()
            .find(|(key, equal, _)| key == "metadata.name" && *equal)
            .map(|(_, _, value)| value.as_str())
    }

    pub fn matches(&self, object: &Packed) -> bool {
        self.requirements.iter().all(|(path, equal, wanted)| {
            let found = match object.find(path.split('.')) {
                None | Some(Value::Null) => String::new(),
                Some(Value::String(text)) => text,
                Some(other) => other.to_string(),
            };
            // Absent booleans read as Kubernetes defaults them.
            let found = match path.as_str() {
                "spec.unschedulable" | "spec.hostNetwork" if found.is_empty() => "false".to_owned(),
                _ => found,
            };
            (found == *wanted) == *equal
        })
    }
}

/// Selectors are matched against the stored form, which for events is the core group's.
fn stored_name(key: &str) -> String {
    match key.strip_prefix("regarding.") {
        Some(rest) => format!("involvedObject.{rest}"),
        None if key == "reportingController" => "reportingComponent".to_owned(),
        None if key == "source" => "source.component".to_owned(),
        None => key.to_owned(),
    }
}

fn split_unescaped(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn label_selectors_match_as_documented() {
        let object = json!({"metadata": {"labels": {"app": "web", "tier": "front", "n": "7"}}});
        for (selector, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier!=back", true),
            ("app in (web, api),tier notin (back)", true),
            ("app in (api)", false),
            ("missing", false),
            ("!missing", true),
            ("!app", false),
            ("missing!=x", true),
            ("n>5,n<8", true),
            ("n>7", false),
            ("app", true),
        ] {
            let labels = Labels::parse(selector).unwrap();
            let object = Packed::new(1, &object);
            assert_eq!(labels.matches(&object), expected, "{selector}");
        }
    }

    #[test]
    fn a_selector_in_an_object_is_the_same_as_its_text() {
        let selector = json!({"matchLabels": {"app": "web"}, "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["a", "b"]},
            {"key": "old", "operator": "DoesNotExist"}]});
        let labels = Labels::of_selector(&selector).unwrap();
        assert_eq!(labels.to_string(), "app=web,tier in (a,b),!old");
        assert_eq!(Labels::parse(&labels.to_string()).unwrap(), labels);
        assert!(labels.match_labels(&json!({"app": "web", "tier": "b"})));
        assert!(!labels.match_labels(&json!({"app": "web", "tier": "b", "old": ""})));
        for bad in [
            json!({"matchLabels": {"a": "not ok"}}),
            json!({"matchExpressions": [{"key": "a", "operator": "In"}]}),
            json!({"matchExpressions": [{"key": "a", "operator": "Near", "values": ["b"]}]}),
        ] {
            assert!(Labels::of_selector(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bad_selectors_are_refused() {
        for bad in ["a in web", "a in (b", "=x", "a=b c", "é=x", "n>many"] {
            assert_eq!(Labels::parse(bad).unwrap_err().code, 400, "{bad}");
        }
        let error = Fields::parse("foo=1", &[]).unwrap_err();
        assert_eq!(error.message, "field label not supported: foo");
        assert!(Fields::parse("metadata.name", &[]).is_err());
    }

    #[test]
    fn field_selectors_match_paths_and_absence() {
        let object =
            json!({"metadata": {"name": "web"}, "spec": {}, "status": {"phase": "Running"}});
        let allowed = ["spec.nodeName".to_owned(), "status.phase".to_owned()];
        for (selector, expected) in [
            ("metadata.name=web", true),
            ("status.phase!=Failed,status.phase!=Succeeded", true),
            ("spec.nodeName=", true),
            ("spec.nodeName=edge", false),
            ("spec.nodeName!=", false),
        ] {
            let fields = Fields::parse(selector, &allowed).unwrap();
            let object = Packed::new(1, &object);
            assert_eq!(fields.matches(&object), expected, "{selector}");
        }
        assert_eq!(
            Fields::parse("metadata.name=a", &[]).unwrap().name(),
            Some("a")
        );
    }
}
