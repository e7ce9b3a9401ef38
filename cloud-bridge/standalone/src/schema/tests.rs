//! What is done with schemas: pruning, defaults, validation, unknown fields, types, and the
//! definitions of custom resources, in the words of the API server.

use serde_json::{Value, json};

use super::strict::{FieldValidation, Limits, check, parse};
use super::{Schema, builtin, crd, openapi};

fn device() -> Schema {
    Schema::custom(Some(&json!({
        "type": "object",
        "required": ["spec"],
        "properties": {
            "spec": {
                "type": "object",
                "required": ["type", "x"],
                "properties": {
                    "type": {"type": "string", "enum": ["INT", "FLOAT"]},
                    "x": {"type": "integer", "format": "int32", "minimum": 2, "maximum": 9},
                    "name": {"type": "string", "minLength": 2, "maxLength": 4, "pattern": "^[a-z]+$"},
                    "mode": {"type": "string", "default": "auto"},
                    "list": {"type": "array", "minItems": 1, "maxItems": 2, "items": {
                        "type": "object", "properties": {
                            "n": {"type": "number", "multipleOf": 0.5},
                            "preset": {"type": "integer", "default": 7},
                        },
                    }},
                    "port": {"x-kubernetes-int-or-string": true},
                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                        "properties": {"known": {"type": "object", "properties": {"a": {"type": "string"}}}}},
                    "template": {"type": "object", "x-kubernetes-embedded-resource": true,
                        "properties": {"spec": {"type": "object"}}},
                    "map": {"type": "object", "additionalProperties": {"type": "integer"}},
                    "maybe": {"type": "string", "nullable": true},
                    "when": {"type": "string", "format": "date-time"},
                    "one": {"type": "object",
                        "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
                        "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
                    "any": {"type": "integer", "anyOf": [{"minimum": 10}, {"maximum": 1}],
                        "not": {"enum": [0]}},
                    "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                },
            },
            "status": {"type": "object", "properties": {"ok": {"type": "boolean"}}},
        },
    })))
    .unwrap()
}

fn with(spec: Value) -> Value {
    json!({"apiVersion": "e.io/v1", "kind": "Device", "metadata": {"name": "d"}, "spec": spec})
}

fn causes(spec: Value) -> Vec<String> {
    device()
        .validate(&with(spec))
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn a_valid_object_has_no_causes() {
    assert_eq!(
        causes(json!({
            "type": "INT", "x": 5, "name": "abc", "list": [{"n": 1.5}], "port": "http",
            "free": {"anything": [1]}, "map": {"k": 1}, "maybe": null,
            "when": "2026-11-23T21:00:00Z", "one": {"a": ""}, "any": 12, "set": ["a", "b"],
        })),
        Vec::<String>::new()
    );
    assert_eq!(
        causes(json!({"type": "INT", "x": 5.0, "port": 80})),
        Vec::<String>::new()
    );
}

#[test]
fn every_rule_is_told_in_kubernetes_words() {
    for (spec, expected) in [
        (json!({"x": 5}), r#"spec.type: Required value"#),
        (
            json!({"type": "X", "x": 5}),
            r#"spec.type: Unsupported value: "X": supported values: "INT", "FLOAT""#,
        ),
        (
            json!({"type": "INT", "x": "5"}),
            r#"spec.x: Invalid value: "string": spec.x in body must be of type integer: "string""#,
        ),
        (
            json!({"type": "INT", "x": 1}),
            "spec.x: Invalid value: 1: spec.x in body should be greater than or equal to 2",
        ),
        (
            json!({"type": "INT", "x": 10}),
            "spec.x: Invalid value: 10: spec.x in body should be less than or equal to 9",
        ),
        (
            json!({"type": "INT", "x": 5, "name": "a"}),
            r#"spec.name: Invalid value: "a": spec.name in body should be at least 2 chars long"#,
        ),
        (
            json!({"type": "INT", "x": 5, "name": "abcde"}),
            "spec.name: Too long: may not be more than 4 bytes",
        ),
        (
            json!({"type": "INT", "x": 5, "name": "A1"}),
            r#"spec.name: Invalid value: "A1": spec.name in body should match '^[a-z]+$'"#,
        ),
        (
            json!({"type": "INT", "x": 5, "list": []}),
            "spec.list: Invalid value: 0: spec.list in body should have at least 1 items",
        ),
        (
            json!({"type": "INT", "x": 5, "list": [{}, {}, {}]}),
            "spec.list: Too many: 3: must have at most 2 items",
        ),
        (
            json!({"type": "INT", "x": 5, "list": [{"n": 0.7}]}),
            "spec.list[0].n: Invalid value: 0.7: spec.list[0].n in body should be a multiple of 0.5",
        ),
        (
            json!({"type": "INT", "x": 5, "port": 1.5}),
            r#"spec.port: Invalid value: "number": spec.port in body must be of type integer,string: "number""#,
        ),
        (
            json!({"type": "INT", "x": 5, "map": {"k": "v"}}),
            r#"spec.map.k: Invalid value: "string": spec.map.k in body must be of type integer: "string""#,
        ),
        (
            json!({"type": "INT", "x": 5, "mode": null}),
            r#"spec.mode: Invalid value: "null": spec.mode in body must be of type string: "null""#,
        ),
        (
            json!({"type": "INT", "x": 5, "when": "soon"}),
            r#"spec.when: Invalid value: "soon": spec.when in body must be of type date-time: "soon""#,
        ),
        (
            json!({"type": "INT", "x": 5, "set": ["a", "a"]}),
            r#"spec.set[1]: Duplicate value: "a""#,
        ),
        (
            json!({"type": "INT", "x": 5, "any": 5}),
            "spec.any: Invalid value: 5: spec.any in body must validate at least one schema (anyOf)",
        ),
        (
            json!({"type": "INT", "x": 5, "any": 0}),
            "spec.any: Invalid value: 0: spec.any in body must not validate the schema (not)",
        ),
        (
            json!({"type": "INT", "x": 5, "one": {"a": "", "b": ""}}),
            r#"spec.one: Invalid value: "object": spec.one in body must validate one and only one schema (oneOf). Found 2 valid alternatives"#,
        ),
    ] {
        let found = causes(spec.clone());
        assert_eq!(found.first().map(String::as_str), Some(expected), "{spec}");
    }
    let none: Vec<_> = device().validate(&json!({"apiVersion": "e.io/v1", "kind": "D"}));
    assert_eq!(none[0].to_string(), "spec: Required value");
}

#[test]
fn pruning_keeps_what_the_schema_names_and_what_it_opens() {
    let mut object = with(json!({
        "type": "INT", "gone": 1,
        "free": {"kept": {"deep": 1}, "known": {"a": "", "gone": 1}},
        "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "gone": 1},
        "list": [{"n": 1, "gone": 1}],
        "map": {"k": 1},
    }));
    object["gone"] = json!(1);
    object["metadata"]["labels"] = json!({"a": "b"});
    object["metadata"]["gone"] = json!(1);
    device().prune(&mut object);
    let mut expected = with(json!({
        "type": "INT",
        "free": {"kept": {"deep": 1}, "known": {"a": ""}},
        "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}},
        "list": [{"n": 1}],
        "map": {"k": 1},
    }));
    expected["metadata"]["labels"] = json!({"a": "b"});
    assert_eq!(object, expected);
}

#[test]
fn defaults_fill_what_is_missing_or_null() {
    let mut object = with(json!({"mode": null, "maybe": null, "list": [{}, {"preset": 1}]}));
    device().default(&mut object);
    assert_eq!(
        object["spec"],
        json!({"mode": "auto", "maybe": null, "list": [{"preset": 7}, {"preset": 1}]})
    );
    let mut object = json!({"apiVersion": "e.io/v1", "kind": "D"});
    device().default(&mut object);
    assert_eq!(object.get("spec"), None);
}

#[test]
fn a_resource_without_a_schema_keeps_everything() {
    let schema = Schema::custom(None).unwrap();
    let mut object = with(json!({"a": {"b": [1, {"c": null}]}}));
    let before = object.clone();
    schema.prune(&mut object);
    assert_eq!(object, before);
    assert!(schema.validate(&object).is_empty());
    assert!(schema.unknown_fields(&object).is_empty());
}

#[test]
fn strict_checks_name_unknown_and_duplicate_fields() {
    let pod = builtin::schema("", "v1", "Pod").unwrap();
    let body = br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"foo":1,
        "spec":{"containers":[{"name":"c","imag":"x"}],"nodeName":"a","nodeName":"b"}}"#;
    let parsed = parse(body, Limits::default()).unwrap();
    assert_eq!(parsed.value["spec"]["nodeName"], "b");
    let strict = check("Pod", "v1", &parsed, &pod, FieldValidation::Strict, true).unwrap_err();
    assert_eq!(
        strict.to_string(),
        r#"Pod in version "v1" cannot be handled as a Pod: strict decoding error: unknown field "foo", unknown field "spec.containers[0].imag", duplicate field "spec.nodeName""#
    );
    let warnings = check("Pod", "v1", &parsed, &pod, FieldValidation::Warn, true).unwrap();
    assert_eq!(warnings[0], r#"unknown field "foo""#);
    assert_eq!(warnings.len(), 3);
    let ignored = check("Pod", "v1", &parsed, &pod, FieldValidation::Ignore, true).unwrap();
    assert!(ignored.is_empty());
}

#[test]
fn built_in_kinds_refuse_values_of_the_wrong_type() {
    let pod = builtin::schema("", "v1", "Pod").unwrap();
    for (spec, expected) in [
        (
            json!({"containers": "c"}),
            "json: cannot unmarshal string into field spec.containers of type array",
        ),
        (
            json!({"priority": 3_000_000_000_u32}),
            "json: cannot unmarshal number 3000000000 into field spec.priority of type int32",
        ),
        (
            json!({"hostNetwork": "yes"}),
            "json: cannot unmarshal string into field spec.hostNetwork of type boolean",
        ),
        (
            json!({"nodeSelector": {"a": 1}}),
            "json: cannot unmarshal number 1 into field spec.nodeSelector.a of type string",
        ),
    ] {
        let error = pod.check_types(&json!({"spec": spec})).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    let fine = json!({"metadata": {"creationTimestamp": null}, "spec": {"containers": [{
        "name": "c", "ports": [{"containerPort": 80}],
        "resources": {"limits": {"cpu": 1, "memory": "1Gi"}},
        "livenessProbe": {"httpGet": {"port": "http"}},
    }]}});
    pod.check_types(&fine).unwrap();
    assert!(pod.unknown_fields(&fine).is_empty());
}

#[test]
fn every_built_in_kind_has_a_schema() {
    for (group, version, kind) in builtin::kinds() {
        let schema = builtin::schema(group, version, kind)
            .unwrap_or_else(|| panic!("{group}/{version} {kind}"));
        let unknown = schema.unknown_fields(&json!({"nonsense": 1}));
        assert_eq!(unknown, ["nonsense"], "{kind}");
    }
    assert!(builtin::schema("apps", "v1", "Pod").is_none());
}

#[test]
fn parsing_is_bounded() {
    let deep = "[".repeat(5000) + &"]".repeat(5000);
    let error = parse(deep.as_bytes(), Limits::default()).unwrap_err();
    assert!(error.to_string().contains("nested too deeply"), "{error}");
    let small = Limits {
        max_bytes: 10,
        ..Limits::default()
    };
    let error = parse(b"{\"a\": \"0123456789\"}", small).unwrap_err();
    assert_eq!(
        error.to_string(),
        "request body of 19 bytes is larger than the limit of 10 bytes"
    );
    assert!(parse(b"{} {}", Limits::default()).is_err());
    assert!(parse(b"", Limits::default()).is_err());
}

fn definition(schema: Value) -> Value {
    json!({"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": schema}}]}})
}

fn refused(schema: Value) -> Vec<String> {
    crd::check(&definition(schema))
        .iter()
        .map(|cause| {
            let line = cause.to_string();
            line.replace("spec.versions[0].schema.openAPIV3Schema", "S")
        })
        .collect()
}

#[test]
fn a_definition_must_be_structural() {
    let none: Vec<String> = Vec::new();
    assert_eq!(
        refused(json!({"type": "object", "properties": {
            "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "port": {"x-kubernetes-int-or-string": true,
                "anyOf": [{"type": "integer"}, {"type": "string"}]},
            "metadata": {"type": "object"},
        }})),
        none
    );
    for (schema, expected) in [
        (
            json!({}),
            "S.type: Required value: must not be empty at the root",
        ),
        (
            json!({"type": "string"}),
            r#"S.type: Invalid value: "string": must be object at the root"#,
        ),
        (
            json!({"type": "object", "properties": {"spec": {}}}),
            "S.properties[spec].type: Required value: must not be empty for specified object fields",
        ),
        (
            json!({"type": "object", "properties": {"l": {"type": "array"}}}),
            "S.properties[l].items: Required value: must be specified",
        ),
        (
            json!({"type": "object", "properties": {"l": {"type": "list"}}}),
            r#"S.properties[l].type: Unsupported value: "list": supported values: "array", "boolean", "integer", "number", "object", "string""#,
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string", "default": 1}}}),
            r#"S.properties[a].default: Invalid value: 1: Invalid value: "integer": in body must be of type string: "integer""#,
        ),
        (
            json!({"type": "object", "properties": {"a": {"$ref": "#/x", "type": "object"}}}),
            "S.properties[a].$ref: Forbidden: $ref is not supported",
        ),
        (
            json!({"type": "object", "oneOf": [{"properties": {"a": {"type": "string"}}}]}),
            "S.oneOf[0].properties[a]: Required value: must also be described in properties outside of the logic",
        ),
        (
            json!({"type": "object", "properties": {"l": {"type": "array", "items": {"type": "object"},
                "x-kubernetes-list-type": "map"}}}),
            "S.properties[l].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}}),
            "S: Invalid value: \"schema\": openAPIV3Schema.properties[a]: pattern \"(\" is not a supported regular expression",
        ),
    ] {
        let found = refused(schema.clone());
        assert!(
            found.first().is_some_and(|line| line.starts_with(expected)),
            "{schema}: {found:?}"
        );
    }
}

#[test]
fn a_definitions_versions_are_checked() {
    let lines = |definition: Value| -> Vec<String> {
        crd::check(&definition)
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    assert_eq!(
        lines(json!({"spec": {}})),
        ["spec.versions: Required value: must have at least one version"]
    );
    let found = lines(json!({"spec": {"versions": [
        {"name": "V1", "additionalPrinterColumns": [{"name": "A", "type": "text"}]},
    ]}}));
    assert_eq!(found.len(), 4, "{found:?}");
    assert_eq!(
        found[1],
        "spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required"
    );
}

#[test]
fn too_deep_a_schema_is_refused_and_not_followed() {
    let mut schema = json!({"type": "string"});
    for _ in 0..90 {
        schema = json!({"type": "object", "properties": {"a": schema}});
    }
    let found = refused(schema);
    assert!(
        found[0].contains("nested deeper than 64 levels"),
        "{found:?}"
    );
}

fn row(group: &str, kind: &str, plural: &str, custom: Option<Value>) -> openapi::Row {
    openapi::Row {
        group: group.into(),
        version: "v1".into(),
        kind: kind.into(),
        plural: plural.into(),
        namespaced: true,
        subresources: vec!["status".into()],
        custom: custom.map(|schema| std::sync::Arc::new(openapi::RawSchema::of(Some(&schema)))),
    }
}

/// Every `$ref` of a document with the node it stands in.
fn references<'a>(value: &'a Value, found: &mut Vec<(&'a str, usize)>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(target)) = map.get("$ref") {
                found.push((target, map.len()));
            }
            map.values().for_each(|v| references(v, found));
        }
        Value::Array(list) => list.iter().for_each(|v| references(v, found)),
        _ => {}
    }
}

#[test]
fn the_openapi_document_tells_kubectl_what_it_looks_for() {
    let document = openapi::document(&[row("", "Pod", "pods", None)]);
    let patch = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
    assert_eq!(
        patch["x-kubernetes-group-version-kind"],
        json!({"group": "", "version": "v1", "kind": "Pod"})
    );
    let names: Vec<_> = patch["parameters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["name"].as_str().unwrap())
        .collect();
    for name in ["fieldValidation", "dryRun", "fieldManager", "force"] {
        assert!(names.contains(&name), "{names:?}");
    }
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let pod = &schemas["io.k8s.api.core.v1.Pod"];
    assert_eq!(
        pod["properties"]["spec"]["allOf"][0]["$ref"],
        "#/components/schemas/io.k8s.api.core.v1.PodSpec"
    );
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    let mut refs = Vec::new();
    references(&document, &mut refs);
    for (target, siblings) in refs {
        let name = target.rsplit('/').next().unwrap();
        assert!(schemas.contains_key(name), "{target} leads nowhere");
        assert_eq!(siblings, 1, "{target} has siblings");
    }
}

#[test]
fn the_schema_of_definitions_keeps_its_property_called_ref() {
    let document = openapi::document(&[row(
        "apiextensions.k8s.io",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        None,
    )]);
    let name = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
    let props = &document["components"]["schemas"][name]["properties"];
    assert_eq!(props["$ref"]["type"], "string");
    assert!(props["not"]["allOf"].is_array());
}

#[test]
fn custom_resources_are_described_under_their_reversed_group() {
    let schema = json!({"type": "object", "description": "A field device.", "properties": {
        "spec": {"type": "object", "description": "What it shall do."},
    }});
    let rows = [row(
        "devices.kubeedge.io",
        "Device",
        "devices",
        Some(schema),
    )];
    let document = openapi::document(&rows);
    let device = &document["components"]["schemas"]["io.kubeedge.devices.v1.Device"];
    assert_eq!(device["description"], "A field device.");
    assert_eq!(
        device["x-kubernetes-group-version-kind"],
        json!([{"group": "devices.kubeedge.io", "version": "v1", "kind": "Device"}])
    );
    assert!(device["properties"]["metadata"]["allOf"].is_array());
    let paths = document["paths"].as_object().unwrap();
    assert!(
        paths.contains_key(
            "/apis/devices.kubeedge.io/v1/namespaces/{namespace}/devices/{name}/status"
        )
    );
}

#[test]
fn documents_are_built_once_until_their_rows_change() {
    let documents = openapi::Documents::default();
    let rows = [row("", "ConfigMap", "configmaps", None)];
    let first = documents.get(&rows);
    assert_eq!(first.as_ptr(), documents.get(&rows).as_ptr());
    let more = [rows[0].clone(), row("", "Secret", "secrets", None)];
    assert_ne!(openapi::fingerprint(&rows), openapi::fingerprint(&more));
    assert!(documents.get(&more).len() > first.len());
}

#[test]
fn what_a_field_selector_may_name_is_one_plain_value() {
    let check = |path: &str| {
        crd::check(&json!({"spec": {"versions": [{"name": "v1",
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "properties": {
                    "node": {"type": "string"},
                    "list": {"type": "array", "items": {"type": "string"}}}}}}},
            "selectableFields": [{"jsonPath": path}]}]}}))
    };
    assert_eq!(check(".spec.node"), []);
    for bad in [
        ".spec.list",
        ".spec.gone",
        "spec.node",
        ".metadata.name",
        "",
    ] {
        let causes = check(bad);
        assert_eq!(causes.len(), 1, "{bad:?}: {causes:?}");
        assert_eq!(
            causes[0].field,
            "spec.versions[0].selectableFields[0].jsonPath"
        );
    }
}
