//! Objects: made, read, changed, refused, deleted.

#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use http::Method;
use serde_json::{Value, json};

#[tokio::test]
async fn an_object_lives_its_life() {
    let (_dir, server) = server().await;
    let c = &server.client;
    let made = c.post(CONFIG_MAPS, &config_map("a", "1")).await;
    assert_eq!(made.status, 201);
    let made = made.ok();
    assert_eq!(made["metadata"]["namespace"], "default");
    assert!(made["metadata"]["uid"].as_str().unwrap().len() == 36);
    let again = c.post(CONFIG_MAPS, &config_map("a", "1")).await;
    assert_eq!(
        again.refused(409, "AlreadyExists"),
        "configmaps \"a\" already exists"
    );

    let path = format!("{CONFIG_MAPS}/a");
    let mut changed = made.clone();
    changed["data"]["x"] = json!("2");
    let second = c.put(&path, &changed).await.ok();
    assert_ne!(
        second["metadata"]["resourceVersion"],
        made["metadata"]["resourceVersion"]
    );
    let stale = c.put(&path, &changed).await;
    assert!(
        stale
            .refused(409, "Conflict")
            .contains("the object has been modified")
    );
    let same = c.put(&path, &second).await.ok();
    assert_eq!(
        same["metadata"], second["metadata"],
        "no change is no new version"
    );

    let wrong_uid = json!({"preconditions": {"uid": "other"}});
    c.delete(&path, wrong_uid).await.refused(409, "Conflict");
    let gone = c.delete(&path, Value::Null).await.ok();
    assert_eq!(
        (&gone["kind"], &gone["details"]["uid"]),
        (&json!("Status"), &made["metadata"]["uid"])
    );
    assert_eq!(
        c.get(&path).await.refused(404, "NotFound"),
        "configmaps \"a\" not found"
    );
    server.stop().await;
}

#[tokio::test]
async fn names_are_generated_and_dry_runs_change_nothing() {
    let (_dir, server) = server().await;
    let c = &server.client;
    let body = json!({"metadata": {"generateName": "x-"}, "data": {}});
    let name = c.post(CONFIG_MAPS, &body).await.ok()["metadata"]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(name.starts_with("x-") && name.len() == 7, "{name}");

    assert_eq!(
        c.post(
            &format!("{CONFIG_MAPS}?dryRun=All"),
            &config_map("dry", "1")
        )
        .await
        .status,
        201
    );
    c.get(&format!("{CONFIG_MAPS}/dry"))
        .await
        .refused(404, "NotFound");
    c.post(CONFIG_MAPS, &config_map("a", "1")).await.ok();
    // kubectl says it in the body, not in the query.
    c.delete(&format!("{CONFIG_MAPS}/a"), json!({"dryRun": ["All"]}))
        .await
        .ok();
    let patched = c
        .patch(
            &format!("{CONFIG_MAPS}/a?dryRun=All"),
            "merge",
            &json!({"data": {"x": "9"}}),
        )
        .await
        .ok();
    assert_eq!(patched["data"]["x"], "9");
    assert_eq!(
        c.get(&format!("{CONFIG_MAPS}/a")).await.ok()["data"]["x"],
        "1"
    );
    server.stop().await;
}

#[tokio::test]
async fn wrong_requests_are_refused_in_kubernetes_words() {
    let (_dir, server) = server().await;
    let c = &server.client;
    let missing = c.get("/apis/nope/v1/things").await;
    assert_eq!(
        (missing.status.as_u16(), &missing.bytes[..]),
        (404, &b"404 page not found\n"[..])
    );
    let message = c.get("/api/v1/nopes").await.refused(404, "NotFound");
    assert_eq!(message, "the server could not find the requested resource");
    c.post(CONFIG_MAPS, &json!([1]))
        .await
        .refused(400, "BadRequest");
    c.send(Method::POST, CONFIG_MAPS, "application/json", "{\"a")
        .await
        .refused(400, "BadRequest");
    c.send(Method::POST, CONFIG_MAPS, "text/csv", "a,b")
        .await
        .refused(415, "UnsupportedMediaType");
    c.send(
        Method::POST,
        CONFIG_MAPS,
        "application/vnd.kubernetes.protobuf",
        "k8s\0\u{7f}garbage",
    )
    .await
    .refused(400, "BadRequest");
    let large = config_map("big", &"x".repeat(4 << 20));
    c.post(CONFIG_MAPS, &large)
        .await
        .refused(413, "RequestEntityTooLarge");
    c.get_as(CONFIG_MAPS, "image/png")
        .await
        .refused(406, "NotAcceptable");
    c.put(CONFIG_MAPS, &json!({}))
        .await
        .refused(405, "MethodNotAllowed");
    for query in [
        "labelSelector=a+b+c",
        "fieldSelector=spec.nope%3D1",
        "limit=many",
        "continue=zz",
        "resourceVersion=x",
    ] {
        c.get(&format!("{CONFIG_MAPS}?{query}"))
            .await
            .refused(400, "BadRequest");
    }
    let bad_name = c.post(CONFIG_MAPS, &config_map("Bad_Name", "1")).await;
    assert!(
        bad_name
            .refused(422, "Invalid")
            .contains("a lowercase RFC 1123 subdomain")
    );
    let message = c
        .post(
            "/api/v1/namespaces/nowhere/configmaps",
            &config_map("a", "1"),
        )
        .await
        .refused(404, "NotFound");
    assert_eq!(message, "namespaces \"nowhere\" not found");
    let kind = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}});
    c.post(CONFIG_MAPS, &kind).await.refused(400, "BadRequest");
    server.stop().await;
}

#[tokio::test]
async fn unknown_and_duplicate_fields_are_refused_or_told_as_asked() {
    let (_dir, server) = server().await;
    let c = &server.client;
    let body = r#"{"metadata":{"name":"a"},"foo":1,"data":{"x":"1"},"data":{"x":"2"}}"#;
    let strict = c
        .send(
            Method::POST,
            &format!("{CONFIG_MAPS}?fieldValidation=Strict"),
            "application/json",
            body,
        )
        .await;
    assert_eq!(
        strict.refused(400, "BadRequest"),
        r#"ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: unknown field "foo", duplicate field "data""#
    );
    let warned = c
        .send(Method::POST, CONFIG_MAPS, "application/json", body)
        .await;
    let warnings: Vec<&str> = warned
        .headers
        .get_all("warning")
        .iter()
        .map(|w| w.to_str().unwrap())
        .collect();
    assert_eq!(
        warnings,
        [
            r#"299 - "unknown field \"foo\"""#,
            r#"299 - "duplicate field \"data\"""#
        ]
    );
    assert_eq!(warned.ok().get("foo"), None);
    server.stop().await;
}

#[tokio::test]
async fn a_custom_resource_is_checked_defaulted_and_pruned() {
    let (_dir, server) = server().await;
    let c = &server.client;
    let made = c.post(CRDS, &definition()).await.ok();
    assert_eq!(made["status"]["conditions"][1]["type"], "Established");
    // Served as soon as it is established.
    let mut sent = thing("a", json!({"extra": true}));
    sent["status"] = json!({"size": 3});
    let a = c.post(THINGS, &sent).await.ok();
    assert_eq!(a["spec"], json!({"size": 1}), "defaulted and pruned");
    assert_eq!(a.get("status"), None, "status is not taken on create");
    assert_eq!(a["metadata"]["generation"], 1);
    let bad = c.post(THINGS, &thing("b", json!({"size": 10}))).await;
    assert!(
        bad.refused(422, "Invalid").contains("spec.size"),
        "{:?}",
        bad.bytes
    );

    let path = format!("{THINGS}/a");
    let a = c
        .patch(
            &format!("{path}/status"),
            "merge",
            &json!({"status": {"size": 4}, "spec": {"size": 5}}),
        )
        .await
        .ok();
    assert_eq!(
        (&a["status"]["size"], &a["spec"]["size"]),
        (&json!(4), &json!(1))
    );
    assert_eq!(a["metadata"]["generation"], 1, "a status is not a wish");
    let a = c
        .patch(
            &path,
            "merge",
            &json!({"status": {"size": 9}, "spec": {"size": 5}}),
        )
        .await
        .ok();
    assert_eq!(
        (&a["status"]["size"], &a["spec"]["size"]),
        (&json!(4), &json!(5))
    );
    assert_eq!(a["metadata"]["generation"], 2);

    let scale = c
        .patch(
            &format!("{path}/scale"),
            "merge",
            &json!({"spec": {"replicas": 7}}),
        )
        .await
        .ok();
    assert_eq!(
        (&scale["spec"]["replicas"], &scale["status"]["replicas"]),
        (&json!(7), &json!(4))
    );
    let refused = c
        .patch(&path, "strategic-merge", &json!({}))
        .await
        .refused(415, "UnsupportedMediaType");
    assert!(refused.contains("accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"));
    let found = c
        .get(&format!("{THINGS}?fieldSelector=spec.node%3De"))
        .await
        .ok();
    assert_eq!(found["items"], json!([]));
    server.stop().await;
}

#[tokio::test]
async fn deleting_a_definition_deletes_its_objects_and_its_kind() {
    let (_dir, server) = server().await;
    let c = &server.client;
    c.post(CRDS, &definition()).await.ok();
    let mut kept = thing("kept", json!({}));
    kept["metadata"]["finalizers"] = json!(["e.io/wait"]);
    c.post(THINGS, &kept).await.ok();
    c.post(THINGS, &thing("a", json!({}))).await.ok();
    c.delete(&format!("{CRDS}/things.e.io"), Value::Null)
        .await
        .ok();
    eventually("only the one with a finalizer is left", async || {
        let list = c.get(THINGS).await.ok();
        (list["items"].as_array()?.len() == 1).then_some(())
    })
    .await;
    let late = c.post(THINGS, &thing("late", json!({}))).await;
    late.refused(405, "MethodNotAllowed");
    c.patch(
        &format!("{THINGS}/kept"),
        "merge",
        &json!({"metadata": {"finalizers": null}}),
    )
    .await
    .ok();
    eventually("the definition is gone", async || {
        (c.get(&format!("{CRDS}/things.e.io")).await.status == 404).then_some(())
    })
    .await;
    assert_eq!(c.get(THINGS).await.status, 404);
    c.post(CRDS, &definition()).await.ok();
    assert_eq!(
        c.get(THINGS).await.ok()["items"],
        json!([]),
        "a new kind begins empty"
    );
    server.stop().await;
}

#[tokio::test]
async fn owners_take_their_dependents_along() {
    let (_dir, server) = server().await;
    let c = &server.client;
    let owner = c.post(CONFIG_MAPS, &config_map("owner", "1")).await.ok();
    let mut owned = config_map("owned", "1");
    owned["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "ConfigMap",
        "name": "owner", "uid": owner["metadata"]["uid"], "blockOwnerDeletion": true}]);
    c.post(CONFIG_MAPS, &owned).await.ok();
    c.delete(
        &format!("{CONFIG_MAPS}/owner"),
        json!({"propagationPolicy": "Foreground"}),
    )
    .await
    .ok();
    for name in ["owned", "owner"] {
        eventually("both are gone", async || {
            (c.get(&format!("{CONFIG_MAPS}/{name}")).await.status == 404).then_some(())
        })
        .await;
    }
    let owner = c.post(CONFIG_MAPS, &config_map("owner", "1")).await.ok();
    owned["metadata"]["ownerReferences"][0]["uid"] = owner["metadata"]["uid"].clone();
    c.post(CONFIG_MAPS, &owned).await.ok();
    c.delete(
        &format!("{CONFIG_MAPS}/owner"),
        json!({"propagationPolicy": "Orphan"}),
    )
    .await
    .ok();
    let orphan = eventually("the dependent is on its own", async || {
        let object = c.get(&format!("{CONFIG_MAPS}/owned")).await.ok();
        object["metadata"]
            .get("ownerReferences")
            .is_none()
            .then_some(object)
    })
    .await;
    assert_eq!(orphan["data"]["x"], "1");
    server.stop().await;
}

#[tokio::test]
async fn a_namespace_goes_with_everything_in_it() {
    let (_dir, server) = server().await;
    let c = &server.client;
    c.post("/api/v1/namespaces", &json!({"metadata": {"name": "demo"}}))
        .await
        .ok();
    eventually("it has its account and CA", async || {
        let account = c
            .get("/api/v1/namespaces/demo/serviceaccounts/default")
            .await
            .status;
        let ca = c
            .get("/api/v1/namespaces/demo/configmaps/kube-root-ca.crt")
            .await
            .status;
        (account == 200 && ca == 200).then_some(())
    })
    .await;
    let mut held = config_map("held", "1");
    held["metadata"]["finalizers"] = json!(["e.io/wait"]);
    c.post("/api/v1/namespaces/demo/configmaps", &held)
        .await
        .ok();
    let going = c.delete("/api/v1/namespaces/demo", Value::Null).await.ok();
    assert_eq!(going["status"]["phase"], "Terminating");
    let message = c
        .post(
            "/api/v1/namespaces/demo/configmaps",
            &config_map("late", "1"),
        )
        .await
        .refused(403, "Forbidden");
    assert!(
        message.contains("because it is being terminated"),
        "{message}"
    );
    eventually("all but the held one is gone", async || {
        let list = c.get("/api/v1/namespaces/demo/configmaps").await.ok();
        (list["items"].as_array()?.len() == 1).then_some(())
    })
    .await;
    c.patch(
        "/api/v1/namespaces/demo/configmaps/held",
        "json",
        &json!([{"op": "remove", "path": "/metadata/finalizers"}]),
    )
    .await
    .ok();
    eventually("the namespace is gone", async || {
        (c.get("/api/v1/namespaces/demo").await.status == 404).then_some(())
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn pods_end_as_their_node_says() {
    let (_dir, server) = server().await;
    let c = &server.client;
    let pod = |name: &str| json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
    c.post(PODS, &pod("loose")).await.ok();
    c.delete(&format!("{PODS}/loose"), Value::Null).await.ok();
    c.get(&format!("{PODS}/loose"))
        .await
        .refused(404, "NotFound");

    c.post(PODS, &pod("web")).await.ok();
    let binding = json!({"target": {"kind": "Node", "name": "e"}});
    assert_eq!(
        c.post(&format!("{PODS}/web/binding"), &binding)
            .await
            .status,
        201
    );
    c.post(&format!("{PODS}/web/binding"), &binding)
        .await
        .refused(409, "Conflict");
    let mut bound = c.get(&format!("{PODS}/web")).await.ok();
    assert_eq!(bound["spec"]["nodeName"], "e");
    bound["spec"].as_object_mut().unwrap().remove("nodeName");
    assert_eq!(
        c.put(&format!("{PODS}/web"), &bound).await.ok()["spec"]["nodeName"],
        "e"
    );
    let moved = c
        .patch(
            &format!("{PODS}/web"),
            "merge",
            &json!({"spec": {"nodeName": "f"}}),
        )
        .await;
    moved.refused(422, "Invalid");

    let eviction = |dry: Value| {
        json!({"kind": "Eviction", "apiVersion": "policy/v1",
        "metadata": {"name": "web"}, "deleteOptions": {"gracePeriodSeconds": 7, "dryRun": dry}})
    };
    assert_eq!(
        c.post(&format!("{PODS}/web/eviction"), &eviction(json!(["All"])))
            .await
            .status,
        201
    );
    let pod = c.get(&format!("{PODS}/web")).await.ok();
    assert_eq!(pod["metadata"].get("deletionTimestamp"), None);
    assert_eq!(
        c.post(&format!("{PODS}/web/eviction"), &eviction(Value::Null))
            .await
            .status,
        201
    );
    let pod = c.get(&format!("{PODS}/web")).await.ok();
    assert_eq!(pod["metadata"]["deletionGracePeriodSeconds"], 7);
    c.delete(&format!("{PODS}/web"), json!({"gracePeriodSeconds": 0}))
        .await
        .ok();
    c.get(&format!("{PODS}/web")).await.refused(404, "NotFound");
    server.stop().await;
}

#[tokio::test]
async fn patches_of_every_kind_change_what_they_say() {
    let (_dir, server) = server().await;
    let c = &server.client;
    let path = format!("{PODS}/web");
    c.post(
        PODS,
        &json!({"metadata": {"name": "web", "labels": {"a": "1"}},
        "spec": {"containers": [{"name": "c", "image": "i:1"}, {"name": "d", "image": "i:1"}]}}),
    )
    .await
    .ok();
    let pod = c
        .patch(
            &path,
            "strategic-merge",
            &json!({"spec": {"containers": [{"name": "d", "image": "i:2"}]}}),
        )
        .await
        .ok();
    assert_eq!(
        pod["spec"]["containers"][0]["image"], "i:1",
        "merged by name"
    );
    assert_eq!(pod["spec"]["containers"][1]["image"], "i:2");
    let pod = c
        .patch(
            &path,
            "merge",
            &json!({"metadata": {"labels": {"b": "2", "a": null}}}),
        )
        .await
        .ok();
    assert_eq!(pod["metadata"]["labels"], json!({"b": "2"}));
    let pod = c.patch(&path, "json", &json!([{"op": "test", "path": "/metadata/labels/b", "value": "2"}, {"op": "add", "path": "/metadata/labels/c", "value": "3"}])).await.ok();
    assert_eq!(pod["metadata"]["labels"]["c"], "3");
    c.patch(&path, "json", &json!([{"op": "remove", "path": "/nope"}]))
        .await
        .refused(422, "Invalid");
    c.patch(&path, "merge", &json!({"spec": {"containers": "none"}}))
        .await
        .refused(400, "BadRequest");
    c.patch(
        &path,
        "strategic-merge",
        &json!({"spec": {"containers": [{"image": "i"}]}}),
    )
    .await
    .refused(400, "BadRequest");

    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ssa"}, "data": {"x": "1"}});
    let at = format!("{CONFIG_MAPS}/ssa");
    c.patch(&at, "apply", &config).await.refused(422, "Invalid");
    let untyped = c
        .patch(&format!("{at}?fieldManager=one"), "apply", &json!({}))
        .await;
    assert!(untyped.refused(400, "BadRequest").contains("no apiVersion"));
    let applied = c
        .patch(&format!("{at}?fieldManager=one"), "apply", &config)
        .await;
    assert_eq!(applied.status, 201);
    let mut other = config.clone();
    other["data"]["x"] = json!("2");
    let conflict = c
        .patch(&format!("{at}?fieldManager=two"), "apply", &other)
        .await;
    assert!(
        conflict
            .refused(409, "Conflict")
            .contains("conflict with \"one\"")
    );
    let cause = &conflict.json()["details"]["causes"][0];
    assert_eq!(cause["message"], "conflict with \"one\"");
    let forced = c
        .patch(
            &format!("{at}?fieldManager=two&force=true"),
            "apply",
            &other,
        )
        .await
        .ok();
    assert_eq!(forced["data"]["x"], "2");
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: ssa\ndata:\n  x: \"3\"\n";
    let from_yaml = c
        .send(
            Method::PATCH,
            &format!("{at}?fieldManager=two"),
            "application/apply-patch+yaml",
            yaml,
        )
        .await;
    assert_eq!(from_yaml.ok()["data"]["x"], "3");
    server.stop().await;
}

#[tokio::test]
async fn events_are_one_set_in_two_groups_and_grow_old() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = edgebus_standalone::Config::new(dir.path());
    config.event_ttl = std::time::Duration::from_secs(600);
    let server = Running::start(config).await;
    let c = &server.client;
    let old = json!({"metadata": {"name": "old"}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reason": "Was", "message": "long ago", "lastTimestamp": "2020-01-01T00:00:00Z"});
    let new = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "new"},
        "regarding": {"kind": "Device", "name": "d", "namespace": "default"}, "note": "hot", "reason": "Hot",
        "reportingController": "link", "eventTime": "2126-01-01T00:00:00.000000Z"});
    c.post("/apis/events.k8s.io/v1/namespaces/default/events", &new)
        .await
        .ok();
    let core = c
        .get("/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Dd")
        .await
        .ok();
    assert_eq!(
        (
            &core["items"][0]["message"],
            &core["items"][0]["reportingComponent"]
        ),
        (&json!("hot"), &json!("link"))
    );
    let modern = c
        .get("/apis/events.k8s.io/v1/namespaces/default/events/new")
        .await
        .ok();
    assert_eq!(modern["regarding"]["name"], "d");
    // Created in the past is impossible, so the time to live is measured by what is newest.
    c.post("/api/v1/namespaces/default/events", &old).await.ok();
    assert_eq!(
        c.get("/api/v1/namespaces/default/events/old").await.status,
        200
    );
    server.stop().await;
}

#[tokio::test]
async fn old_events_are_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = edgebus_standalone::Config::new(dir.path());
    config.event_ttl = std::time::Duration::from_millis(300);
    let server = Running::start(config).await;
    let c = &server.client;
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}, "reason": "R"});
    c.post("/api/v1/namespaces/default/events", &event)
        .await
        .ok();
    eventually("the event is gone", async || {
        (c.get("/api/v1/namespaces/default/events/e").await.status == 404).then_some(())
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn a_collection_is_deleted_by_its_selector() {
    let (_dir, server) = server().await;
    let c = &server.client;
    for (name, app) in [("a", "web"), ("b", "web"), ("c", "db")] {
        let mut object = config_map(name, "1");
        object["metadata"]["labels"] = json!({"app": app});
        c.post(CONFIG_MAPS, &object).await.ok();
    }
    let path = format!("{CONFIG_MAPS}?labelSelector=app%3Dweb");
    let deleted = c.delete(&path, Value::Null).await.ok();
    assert_eq!(deleted["items"].as_array().map(Vec::len), Some(2));
    assert_eq!(c.get(&path).await.ok()["items"], json!([]));
    assert_eq!(c.get(&format!("{CONFIG_MAPS}/c")).await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn odd_bodies_are_answered_and_break_nothing() {
    let (_dir, server) = server().await;
    let c = &server.client;
    c.post(CRDS, &definition()).await.ok();
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let kinds = [
        ("/api/v1/namespaces".to_owned(), ["spec", "status"]),
        ("/api/v1/nodes".to_owned(), ["spec", "status"]),
        (PODS.to_owned(), ["spec", "status"]),
        (CONFIG_MAPS.to_owned(), ["data", "immutable"]),
        (
            "/api/v1/namespaces/default/secrets".to_owned(),
            ["stringData", "data"],
        ),
        (
            "/api/v1/namespaces/default/services".to_owned(),
            ["spec", "status"],
        ),
        (
            "/api/v1/namespaces/default/events".to_owned(),
            ["involvedObject", "source"],
        ),
        (CRDS.to_owned(), ["spec", "status"]),
        (THINGS.to_owned(), ["spec", "status"]),
        (format!("{rbac}/rolebindings"), ["roleRef", "subjects"]),
        (format!("{rbac}/roles"), ["rules", "apiVersion"]),
        (
            "/apis/authorization.k8s.io/v1/subjectaccessreviews".to_owned(),
            ["spec", "metadata"],
        ),
        (
            "/apis/authentication.k8s.io/v1/tokenreviews".to_owned(),
            ["spec", "metadata"],
        ),
    ];
    let odd = [
        json!(null),
        json!(7),
        json!("x"),
        json!([1, null, {"a": []}]),
        json!({"finalizers": 3, "names": [], "containers": [1, {"name": 2}], "versions": [null], "ports": "p",
            "taints": [7], "conditions": "c", "kind": []}),
    ];
    for (n, (path, fields)) in kinds.iter().enumerate() {
        for (m, value) in odd.iter().enumerate() {
            for field in fields.iter().chain(&["metadata"]) {
                let mut object = json!({"metadata": {"name": format!("o-{n}-{m}")}});
                object[*field] = value.clone();
                let answer = c.post(path, &object).await;
                assert!(
                    answer.status.as_u16() < 500,
                    "{path} {object}: {:?}",
                    answer.bytes
                );
                let patch = json!({*field: value});
                let answer = c.patch(&format!("{path}/o-{n}-{m}"), "merge", &patch).await;
                assert!(
                    answer.status.as_u16() < 500,
                    "{path} {patch}: {:?}",
                    answer.bytes
                );
            }
        }
        if !path.contains("reviews") {
            let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
            assert_eq!(c.get_as(path, table).await.status, 200, "{path}");
        }
    }
    server.stop().await;
}
