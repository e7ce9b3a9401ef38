//! Checks of `metadata`: names, labels, annotations, finalizers.

use crate::meta::array;
use crate::registry::Resource;
use crate::schema::{Cause, Reason};
use serde_json::Value;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const MOST_ANNOTATION_BYTES: usize = 256 * 1024;

fn dns_label(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    edge(text.chars().next())
        && edge(text.chars().last())
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

/// What is wrong with a name for this kind, if anything.
fn name_problem(resource: &Resource, name: &str) -> Option<&'static str> {
    if resource.group == "rbac.authorization.k8s.io" {
        return match name {
            "." | ".." => Some("may not be '.' or '..'"),
            _ if name.contains('/') => Some("may not contain '/'"),
            _ if name.contains('%') => Some("may not contain '%'"),
            _ => None,
        };
    }
    if matches!(&*resource.storage, "/namespaces" | "/services") {
        return match dns_label(name) {
            _ if name.len() > 63 => Some("must be no more than 63 characters"),
            true => None,
            false => Some(LABEL),
        };
    }
    match name.split('.').all(dns_label) {
        _ if name.len() > 253 => Some("must be no more than 253 characters"),
        true => None,
        false => Some(SUBDOMAIN),
    }
}

pub(super) fn word(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && edge(text.chars().next())
        && edge(text.chars().last())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

pub(super) fn qualified(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => {
            word(name) && prefix.len() <= 253 && prefix.split('.').all(dns_label)
        }
        None => word(key),
    }
}

/// What is wrong with an object's `metadata`.
pub fn check(resource: &Resource, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let metadata = &object["metadata"];
    let name = metadata["name"].as_str().unwrap_or("");
    if name.is_empty() {
        causes.push(Cause::required(
            "metadata.name",
            "name or generateName is required",
        ));
    } else if let Some(problem) = name_problem(resource, name) {
        causes.push(Cause::invalid(
            "metadata.name",
            &format!("{name:?}"),
            problem,
        ));
    }
    for (key, value) in metadata["labels"].as_object().into_iter().flatten() {
        let shown = format!("{key:?}");
        if !qualified(key) {
            causes.push(Cause::invalid("metadata.labels", &shown, QUALIFIED));
        }
        match value.as_str() {
            Some(text) if text.is_empty() || word(text) => {}
            _ => causes.push(Cause::invalid(
                "metadata.labels",
                &value.to_string(),
                LABEL_VALUE,
            )),
        }
    }
    let mut size = 0;
    for (key, value) in metadata["annotations"].as_object().into_iter().flatten() {
        size += key.len() + value.as_str().map_or(0, str::len);
        if !qualified(&key.to_lowercase()) {
            causes.push(Cause::invalid(
                "metadata.annotations",
                &format!("{key:?}"),
                QUALIFIED,
            ));
        }
        if !value.is_string() {
            causes.push(Cause::invalid(
                "metadata.annotations",
                &value.to_string(),
                "must be a string",
            ));
        }
    }
    if size > MOST_ANNOTATION_BYTES {
        causes.push(Cause::plain(
            Reason::TooLong,
            "metadata.annotations",
            &format!("may not be more than {MOST_ANNOTATION_BYTES} bytes"),
        ));
    }
    for (i, finalizer) in array(object, "/metadata/finalizers").iter().enumerate() {
        if !finalizer.as_str().is_some_and(qualified) {
            let field = format!("metadata.finalizers[{i}]");
            causes.push(Cause::invalid(field, &finalizer.to_string(), QUALIFIED));
        }
    }
    for (i, owner) in array(object, "/metadata/ownerReferences")
        .iter()
        .enumerate()
    {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner[field].as_str().is_none_or(str::is_empty) {
                causes.push(Cause::required(
                    format!("metadata.ownerReferences[{i}].{field}"),
                    "must not be empty",
                ));
            }
        }
    }
    causes
}

/// The end of a generated name: five letters that make no words.
pub fn suffix() -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    uuid::Uuid::new_v4().as_bytes()[..5]
        .iter()
        .map(|b| char::from(LETTERS[usize::from(*b) % LETTERS.len()]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;
    use serde_json::json;

    #[test]
    fn bad_metadata_is_named_field_by_field() {
        let now = Registry::new().now();
        let pods = now.find("", "v1", "pods").unwrap();
        let bad = json!({"metadata": {"name": "No_Good", "labels": {"a b": "x", "c": "-"},
            "finalizers": ["not ok"]}});
        let fields: Vec<String> = check(pods, &bad).into_iter().map(|c| c.field).collect();
        assert_eq!(
            fields,
            [
                "metadata.name",
                "metadata.labels",
                "metadata.labels",
                "metadata.finalizers[0]"
            ]
        );
        let good = json!({"metadata": {"name": "a.b-c", "labels": {"x.io/a": "", "c": "V_1"},
            "annotations": {"X/y": "anything at all"}, "finalizers": ["e.io/f"]}});
        assert_eq!(check(pods, &good), []);
    }

    #[test]
    fn a_role_may_have_colons_in_its_name() {
        let now = Registry::new().now();
        let roles = now
            .find("rbac.authorization.k8s.io", "v1", "clusterroles")
            .unwrap();
        assert_eq!(
            check(roles, &json!({"metadata": {"name": "system:node"}})),
            []
        );
    }
}
