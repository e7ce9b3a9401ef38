//! What a request path names. The grammar of the Kubernetes API is regular, so this is all
//! the routing there is.

/// A path, taken apart. Names are percent-decoded and not yet looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/api` or `/apis`: discovery of the core group, or of all others.
    CoreVersions,
    Groups,
    Group(String),
    /// `/api/v1`, `/apis/g/v`
    GroupVersion(String, String),
    Resource(ResourcePath),
    Version,
    /// `/healthz`, `/readyz`, `/livez`, with or without a check's name
    Health,
    OpenApiIndex,
    /// `/openapi/v3/api/v1`, `/openapi/v3/apis/g/v`
    OpenApi(String, String),
    OpenApiV2,
    Unknown,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourcePath {
    pub group: String,
    pub version: String,
    pub namespace: Option<String>,
    pub plural: String,
    pub name: Option<String>,
    /// What follows the name: `status`, `log`, `proxy/…`
    pub subresource: Option<String>,
}

pub fn parse(path: &str) -> Route {
    let mut segments = Vec::new();
    for segment in path.split('/').filter(|s| !s.is_empty()) {
        match decode(segment) {
            Some(segment) => segments.push(segment),
            None => return Route::Unknown,
        }
    }
    let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
    match parts.as_slice() {
        ["api"] => Route::CoreVersions,
        ["apis"] => Route::Groups,
        ["api", version] => Route::GroupVersion(String::new(), (*version).into()),
        ["api", version, rest @ ..] => resource("", version, rest),
        ["apis", group] => Route::Group((*group).into()),
        ["apis", group, version] => Route::GroupVersion((*group).into(), (*version).into()),
        ["apis", group, version, rest @ ..] => resource(group, version, rest),
        ["version"] => Route::Version,
        ["healthz" | "readyz" | "livez", ..] => Route::Health,
        ["openapi", "v3"] => Route::OpenApiIndex,
        ["openapi", "v3", "api", version] => Route::OpenApi(String::new(), (*version).into()),
        ["openapi", "v3", "apis", group, version] => {
            Route::OpenApi((*group).into(), (*version).into())
        }
        ["openapi", "v2"] => Route::OpenApiV2,
        _ => Route::Unknown,
    }
}

fn resource(group: &str, version: &str, rest: &[&str]) -> Route {
    let mut path = ResourcePath {
        group: group.into(),
        version: version.into(),
        ..ResourcePath::default()
    };
    // `namespaces/x`, `namespaces/x/status` and `/finalize` are the namespace itself.
    let (namespace, rest) = match rest {
        ["namespaces", _] | ["namespaces", _, "status" | "finalize"] if group.is_empty() => {
            (None, rest)
        }
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
        _ => (None, rest),
    };
    path.namespace = namespace.map(Into::into);
    path.plural = rest[0].into();
    path.name = rest.get(1).map(|s| (*s).into());
    if rest.len() > 2 {
        path.subresource = Some(rest[2..].join("/"));
    }
    Route::Resource(path)
}

/// Percent-decoding; `None` if what comes out is not UTF-8 or the escape is broken.
pub fn decode(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'%' {
            let digit = |i: usize| bytes.get(i).and_then(|b| (*b as char).to_digit(16));
            let (high, low) = (digit(at + 1)?, digit(at + 2)?);
            out.push(u8::try_from(high * 16 + low).ok()?);
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> ResourcePath {
        match parse(text) {
            Route::Resource(path) => path,
            other => panic!("{text} is {other:?}"),
        }
    }

    #[test]
    fn a_namespace_is_a_resource_and_a_place() {
        let itself = path("/api/v1/namespaces/demo");
        assert_eq!(
            (itself.plural.as_str(), itself.name.as_deref()),
            ("namespaces", Some("demo"))
        );
        assert_eq!(
            path("/api/v1/namespaces/demo/finalize")
                .subresource
                .as_deref(),
            Some("finalize")
        );
        let inside = path("/api/v1/namespaces/demo/pods/web/log");
        assert_eq!(inside.namespace.as_deref(), Some("demo"));
        assert_eq!(
            (inside.plural.as_str(), inside.name.as_deref()),
            ("pods", Some("web"))
        );
        assert_eq!(inside.subresource.as_deref(), Some("log"));
        assert_eq!(path("/api/v1/namespaces").name, None);
    }

    #[test]
    fn groups_versions_and_lists_are_told_apart() {
        assert_eq!(parse("/apis/apps"), Route::Group("apps".into()));
        assert_eq!(
            parse("/apis/apps/v1"),
            Route::GroupVersion("apps".into(), "v1".into())
        );
        let list = path("/apis/devices.kubeedge.io/v1beta1/devices");
        assert_eq!(
            (list.group.as_str(), list.namespace),
            ("devices.kubeedge.io", None)
        );
        assert_eq!(
            parse("/openapi/v3/apis/a.b/v1"),
            Route::OpenApi("a.b".into(), "v1".into())
        );
        assert_eq!(parse("/healthz/ping"), Route::Health);
        assert_eq!(parse("/metrics"), Route::Unknown);
    }

    #[test]
    fn broken_escapes_name_nothing() {
        assert_eq!(decode("a%2Fb").as_deref(), Some("a/b"));
        for bad in ["%", "%2", "%zz", "%ff", "a%"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }
}
