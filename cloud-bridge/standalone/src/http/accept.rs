//! Content negotiation: in which of the forms of an object a client wants its answer.

use crate::error::{ApiError, Result};

/// The forms this server can answer in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Plain,
    /// `meta.k8s.io` Table of version `v1` or `v1beta1`
    Table(&'static str),
    /// PartialObjectMetadata(List)
    Metadata(&'static str),
}

/// One clause of an Accept header.
struct Clause<'a> {
    media: &'a str,
    params: Vec<(&'a str, &'a str)>,
}

impl Clause<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.params.iter().find(|(k, _)| *k == key).map(|(_, v)| *v)
    }
}

fn clauses(header: &str) -> impl Iterator<Item = Clause<'_>> {
    header.split(',').map(|clause| {
        let mut parts = clause.split(';').map(str::trim);
        Clause {
            media: parts.next().unwrap_or(""),
            params: parts.filter_map(|p| p.split_once('=')).collect(),
        }
    })
}

fn is_json(media: &str) -> bool {
    matches!(media, "application/json" | "application/*" | "*/*" | "")
}

fn version(text: Option<&str>) -> Option<&'static str> {
    match text {
        Some("v1") => Some("v1"),
        Some("v1beta1") => Some("v1beta1"),
        _ => None,
    }
}

/// The first form in the header that this server knows.
pub fn negotiate(header: Option<&str>) -> Result<Form> {
    let Some(header) = header.filter(|h| !h.trim().is_empty()) else {
        return Ok(Form::Plain);
    };
    for clause in clauses(header).filter(|c| is_json(c.media)) {
        let meta = clause.get("g") == Some("meta.k8s.io");
        match (clause.get("as"), version(clause.get("v"))) {
            (None, _) => return Ok(Form::Plain),
            (Some("Table"), Some(v)) if meta => return Ok(Form::Table(v)),
            (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some(v)) if meta => {
                return Ok(Form::Metadata(v));
            }
            _ => {}
        }
    }
    Err(ApiError::not_acceptable(&["application/json"]))
}

/// Which version of aggregated discovery the client takes, `None` for the plain lists.
pub fn discovery(header: Option<&str>) -> Option<&'static str> {
    for clause in clauses(header?).filter(|c| is_json(c.media)) {
        match (clause.get("as"), clause.get("v")) {
            (Some("APIGroupDiscoveryList"), Some("v2")) => return Some("v2"),
            (Some("APIGroupDiscoveryList"), Some("v2beta1")) => return Some("v2beta1"),
            (None, _) => return None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_known_form_wins() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        for (header, form) in [
            (None, Form::Plain),
            (Some(table), Form::Table("v1")),
            (
                Some("application/vnd.kubernetes.protobuf,application/json"),
                Form::Plain,
            ),
            (
                Some("application/vnd.kubernetes.protobuf, */*"),
                Form::Plain,
            ),
            (
                Some("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"),
                Form::Metadata("v1"),
            ),
        ] {
            assert_eq!(negotiate(header).unwrap(), form, "{header:?}");
        }
        assert_eq!(negotiate(Some("image/png")).unwrap_err().code, 406);
    }

    #[test]
    fn aggregated_discovery_is_recognised() {
        let v2 =
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        assert_eq!(discovery(Some(v2)), Some("v2"));
        assert_eq!(discovery(Some("application/json, */*")), None);
        assert_eq!(discovery(None), None);
    }
}
