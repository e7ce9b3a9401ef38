//! Query strings, as Kubernetes clients send them: `?&limit=500` is tolerated.

use super::path::decode;
use crate::error::{ApiError, Result};

#[derive(Clone, Debug, Default)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    pub fn parse(text: &str) -> Result<Query> {
        let mut pairs = Vec::new();
        for pair in text.split('&').filter(|p| !p.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let plain = |part: &str| {
                decode(&part.replace('+', " ")).ok_or_else(|| {
                    ApiError::bad_request(format!("invalid URL escape in query parameter {part:?}"))
                })
            };
            pairs.push((plain(key)?, plain(value)?));
        }
        Ok(Query { pairs })
    }

    /// The first value of a parameter; an empty one counts as absent.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(k, v)| k == key && !v.is_empty())
            .map(|(_, v)| v.as_str())
    }

    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs
            .iter()
            .filter(move |(k, _)| k == key)
            .map(|(_, v)| v.as_str())
    }

    /// As Kubernetes converts booleans: present, and not `false` or `0`.
    pub fn flag(&self, key: &str) -> bool {
        self.pairs
            .iter()
            .find(|(k, _)| k == key)
            .is_some_and(|(_, v)| !matches!(v.to_ascii_lowercase().as_str(), "false" | "0"))
    }

    pub fn number(&self, key: &str) -> Result<Option<i64>> {
        self.get(key)
            .map(|text| {
                text.parse().map_err(|_| {
                    ApiError::bad_request(format!(
                        "query parameter {key}={text:?} is not a whole number"
                    ))
                })
            })
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_pairs_and_escapes_are_understood() {
        let query = Query::parse("&limit=500&labelSelector=a%3Db+c&watch&force=false&x=").unwrap();
        assert_eq!(query.number("limit").unwrap(), Some(500));
        assert_eq!(query.get("labelSelector"), Some("a=b c"));
        assert!(query.flag("watch"));
        assert!(!query.flag("force"));
        assert_eq!(query.get("x"), None);
        assert!(Query::parse("a=%zz").is_err());
        assert!(Query::parse("limit=ten").unwrap().number("limit").is_err());
    }
}
