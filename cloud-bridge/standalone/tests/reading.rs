//! Lists, watches, tables, discovery, and who may see them.

#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use edgebus_standalone::Config;
use http::Method;
use serde_json::{Value, json};
use std::time::Duration;

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";

fn labelled(name: &str, app: &str) -> Value {
    let mut object = config_map(name, "1");
    object["metadata"]["labels"] = json!({"app": app});
    object
}

#[tokio::test]
async fn a_list_comes_in_pages_and_by_selectors() {
    let (_dir, server) = server().await;
    let c = &server.client;
    for name in ["a", "b", "c"] {
        c.post(CONFIG_MAPS, &labelled(name, name)).await.ok();
    }
    let mut seen = Vec::new();
    let mut path = format!("{CONFIG_MAPS}?&limit=2");
    loop {
        let page = c.get(&path).await.ok();
        seen.extend(
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|o| o["metadata"]["name"].clone()),
        );
        match page["metadata"]["continue"].as_str() {
            Some(next) => path = format!("{CONFIG_MAPS}?&limit=2&continue={next}"),
            None => break,
        }
    }
    assert_eq!(seen, ["a", "b", "c", "kube-root-ca.crt"]);
    let some = c
        .get(&format!("{CONFIG_MAPS}?labelSelector=app+in+(a,c)"))
        .await
        .ok();
    assert_eq!(some["items"].as_array().unwrap().len(), 2);
    let one = c
        .get("/api/v1/configmaps?fieldSelector=metadata.name%3Db")
        .await
        .ok();
    assert_eq!(one["items"].as_array().unwrap().len(), 1);
    let future = c.get(&format!("{CONFIG_MAPS}?resourceVersion=99999")).await;
    future.refused(504, "Timeout");
    let metadata = c
        .get_as(
            CONFIG_MAPS,
            "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
        )
        .await
        .ok();
    assert_eq!(metadata["kind"], "PartialObjectMetadataList");
    assert_eq!(metadata["items"][0].get("data"), None);
    server.stop().await;
}

#[tokio::test]
async fn a_watch_shows_what_enters_and_leaves_its_selection() {
    let (_dir, server) = server().await;
    let c = &server.client;
    let rev = c.post(CONFIG_MAPS, &labelled("a", "web")).await.ok()["metadata"]["resourceVersion"]
        .clone();
    let rev = rev.as_str().unwrap();
    let mut watch = c
        .watch(
            &format!("{CONFIG_MAPS}?&watch=true&labelSelector=app%3Dweb&resourceVersion={rev}"),
            "",
        )
        .await;
    c.post(CONFIG_MAPS, &labelled("other", "db")).await.ok();
    for (app, expected) in [("db", "DELETED"), ("web", "ADDED")] {
        c.patch(
            &format!("{CONFIG_MAPS}/a"),
            "merge",
            &json!({"metadata": {"labels": {"app": app}}}),
        )
        .await
        .ok();
        assert_eq!(watch.named().await, (expected.to_owned(), "a".to_owned()));
    }
    c.patch(
        &format!("{CONFIG_MAPS}/a"),
        "merge",
        &json!({"data": {"x": "2"}}),
    )
    .await
    .ok();
    assert_eq!(watch.named().await.0, "MODIFIED");
    c.delete(&format!("{CONFIG_MAPS}/a"), Value::Null)
        .await
        .ok();
    assert_eq!(watch.named().await.0, "DELETED");
    server.stop().await;
    assert!(
        watch.next().await.is_none(),
        "a stopping server ends its watches"
    );
}

#[tokio::test]
async fn a_streamed_list_ends_with_its_bookmark() {
    let (_dir, server) = server().await;
    let c = &server.client;
    c.post(CONFIG_MAPS, &labelled("a", "web")).await.ok();
    let streaming = "?&watch=true&timeoutSeconds=290&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=0&labelSelector=app";
    let mut watch = c.watch(&format!("{CONFIG_MAPS}{streaming}"), "").await;
    assert_eq!(watch.named().await, ("ADDED".to_owned(), "a".to_owned()));
    let bookmark = watch.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(
        bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    let refused = c
        .get(&format!("{CONFIG_MAPS}?watch=true&sendInitialEvents=true"))
        .await;
    refused.refused(422, "Invalid");
    server.stop().await;
}

#[tokio::test]
async fn a_watch_from_too_long_ago_is_told_to_list_again() {
    let (_dir, server) = server().await;
    let c = &server.client;
    // Given by a database that is gone, or so long ago: the same to its holder.
    let mut watch = c
        .watch(
            &format!("{CONFIG_MAPS}?watch=true&resourceVersion=99999"),
            "",
        )
        .await;
    let error = watch.next().await.unwrap();
    assert_eq!(error["type"], "ERROR");
    assert_eq!(
        (&error["object"]["code"], &error["object"]["reason"]),
        (&json!(410), &json!("Expired"))
    );
    assert!(watch.next().await.is_none());
    let mut short = c.watch(&format!("{CONFIG_MAPS}?watch=true&resourceVersion=0&timeoutSeconds=1&allowWatchBookmarks=true&labelSelector=none"), "").await;
    assert_eq!(short.next().await.unwrap()["type"], "BOOKMARK");
    assert!(short.next().await.is_none(), "timeoutSeconds ends it");
    server.stop().await;
}

#[tokio::test]
async fn tables_have_the_columns_kubectl_prints() {
    let (_dir, server) = server().await;
    let c = &server.client;
    c.post(CRDS, &definition()).await.ok();
    c.post(THINGS, &thing("a", json!({"size": 3}))).await.ok();
    c.patch(
        &format!("{THINGS}/a/status"),
        "merge",
        &json!({"status": {"conditions": [{"type": "On", "status": "True"}]}}),
    )
    .await
    .ok();
    let table = c.get_as(THINGS, TABLE).await.ok();
    let names: Vec<&str> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["Name", "Size", "On"]);
    assert_eq!(table["rows"][0]["cells"], json!(["a", 3, "True"]));
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let mut watch = c.watch(&format!("{THINGS}?watch=true"), TABLE).await;
    let first = watch.next().await.unwrap();
    assert_eq!(first["object"]["rows"][0]["cells"][0], "a");
    assert!(first["object"]["columnDefinitions"].is_array());
    c.patch(
        &format!("{THINGS}/a"),
        "merge",
        &json!({"spec": {"size": 4}}),
    )
    .await
    .ok();
    let second = watch.next().await.unwrap();
    assert_eq!(second["object"]["rows"][0]["cells"][1], 4);
    assert!(
        second["object"]["columnDefinitions"].is_null(),
        "definitions come once"
    );
    server.stop().await;
}

#[tokio::test]
async fn discovery_names_every_kind_in_both_forms() {
    let (_dir, server) = server().await;
    let c = &server.client;
    c.post(CRDS, &definition()).await.ok();
    let media = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let apis = c
        .get_as("/apis?timeout=32s", &format!("{media},application/json"))
        .await;
    assert_eq!(apis.headers["content-type"], media);
    let found = apis.json()["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|g| g["metadata"]["name"] == "e.io")
        .cloned()
        .unwrap();
    let things = &found["versions"][0]["resources"][0];
    assert_eq!(
        (&things["resource"], &things["scope"], &things["shortNames"]),
        (&json!("things"), &json!("Namespaced"), &json!(["th"]))
    );
    let core = c.get_as("/api", media).await.json();
    assert_eq!(core["items"][0]["metadata"].get("name"), None);
    assert_eq!(c.get("/api").await.ok()["versions"], json!(["v1"]));
    assert!(
        c.get("/apis").await.ok()["groups"]
            .as_array()
            .unwrap()
            .iter()
            .any(|g| g["name"] == "e.io")
    );
    let legacy = c.get("/api/v1").await.ok();
    let eviction = legacy["resources"]
        .as_array()
        .unwrap()
        .iter()
        .find(|r| r["name"] == "pods/eviction")
        .unwrap();
    assert_eq!(eviction["group"], "policy");
    assert_eq!(c.get("/version").await.ok()["minor"], "33");
    assert_eq!(&c.get("/readyz").await.bytes[..], b"ok");
    let index = c.get("/openapi/v3").await.ok();
    for path in ["api/v1", "apis/e.io/v1", "apis/apiextensions.k8s.io/v1"] {
        let url = index["paths"][path]["serverRelativeURL"].as_str().unwrap();
        let document = c.get(&format!("{url}&timeout=32s")).await.ok();
        assert!(document["components"]["schemas"].is_object());
    }
    assert_eq!(c.get("/openapi/v2").await.status, 404);
    let protobuf = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let empty = c.get_as("/openapi/v2", protobuf).await;
    assert_eq!(
        empty.headers["content-type"],
        protobuf.replace('@', ".").as_str()
    );
    server.stop().await;
}

#[tokio::test]
async fn only_who_is_known_and_allowed_gets_an_answer() {
    let (dir, server) = server().await;
    let kubeconfig = dir.path().join("kubeconfig");
    let nobody = Client::without_certificate(&kubeconfig, None);
    let message = nobody.get(PODS).await.refused(403, "Forbidden");
    assert_eq!(
        message,
        r#"pods is forbidden: User "system:anonymous" cannot list resource "pods" in API group "" in the namespace "default""#
    );
    assert_eq!(nobody.get("/version").await.status, 200);
    nobody.get("/apis").await.refused(403, "Forbidden");
    let liar = Client::without_certificate(&kubeconfig, Some("no.such.token".into()));
    liar.get(PODS).await.refused(401, "Unauthorized");

    let c = &server.client;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    c.post(accounts, &json!({"metadata": {"name": "robot"}}))
        .await
        .ok();
    let asked =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let token = c
        .post(&format!("{accounts}/robot/token"), &asked)
        .await
        .ok()["status"]["token"]
        .as_str()
        .unwrap()
        .to_owned();
    let robot = Client::without_certificate(&kubeconfig, Some(token));
    let odd = json!({"spec": "soon", "metadata": 7});
    assert_eq!(
        c.post(&format!("{accounts}/robot/token"), &odd)
            .await
            .status,
        201
    );
    robot.get(PODS).await.refused(403, "Forbidden");
    let who = robot
        .post(
            "/apis/authentication.k8s.io/v1/selfsubjectreviews",
            &json!({}),
        )
        .await
        .ok();
    assert_eq!(
        who["status"]["userInfo"]["username"],
        "system:serviceaccount:default:robot"
    );
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    c.post(&format!("{rbac}/roles"), &json!({"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]})).await.ok();
    c.post(&format!("{rbac}/rolebindings"), &json!({"metadata": {"name": "r"}, "roleRef": {"kind": "Role", "name": "r", "apiGroup": "rbac.authorization.k8s.io"},
        "subjects": [{"kind": "ServiceAccount", "name": "robot", "namespace": "default"}]})).await.ok();
    assert_eq!(robot.get(PODS).await.status, 200);
    robot.get("/api/v1/pods").await.refused(403, "Forbidden");
    let may = |verb: &str| json!({"spec": {"resourceAttributes": {"verb": verb, "resource": "pods", "namespace": "default"}}});
    for (verb, expected) in [("list", true), ("delete", false)] {
        let answer = robot
            .post(
                "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
                &may(verb),
            )
            .await
            .ok();
        assert_eq!(answer["status"]["allowed"], expected);
    }
    c.delete(&format!("{accounts}/robot"), Value::Null)
        .await
        .ok();
    robot.get(PODS).await.refused(401, "Unauthorized");
    server.stop().await;
}

#[tokio::test]
async fn a_silent_node_is_not_ready_until_it_speaks_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(dir.path());
    config.node_grace = Duration::from_millis(800);
    let server = Running::start(config).await;
    let c = &server.client;
    let ready =
        json!([{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ok"}]);
    c.post(
        "/api/v1/nodes",
        &json!({"metadata": {"name": "edge-0"}, "status": {"conditions": ready}}),
    )
    .await
    .ok();
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    c.post(leases, &json!({"metadata": {"name": "edge-0"}, "spec": {"holderIdentity": "edge-0", "leaseDurationSeconds": 40, "renewTime": "2026-01-01T00:00:00.000000Z"}})).await.ok();
    // While the lease is renewed (whatever its clock says), the node stays ready.
    for n in 0..12 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let renewed = json!({"spec": {"renewTime": format!("2026-01-01T00:00:{n:02}.500000Z")}});
        c.patch(&format!("{leases}/edge-0"), "merge", &renewed)
            .await
            .ok();
    }
    let node = c.get("/api/v1/nodes/edge-0").await.ok();
    assert_eq!(node["status"]["conditions"][0]["status"], "True");
    let node = eventually("the node is unknown", async || {
        let node = c.get("/api/v1/nodes/edge-0").await.ok();
        (node["status"]["conditions"][0]["status"] == "Unknown").then_some(node)
    })
    .await;
    assert_eq!(
        node["status"]["conditions"][0]["reason"],
        "NodeStatusUnknown"
    );
    let effects: Vec<&str> = node["spec"]["taints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["effect"].as_str().unwrap())
        .collect();
    assert_eq!(effects, ["NoSchedule", "NoExecute"]);
    c.patch(
        &format!("{leases}/edge-0"),
        "merge",
        &json!({"spec": {"renewTime": "2026-01-01T00:10:00.000000Z"}}),
    )
    .await
    .ok();
    c.patch("/api/v1/nodes/edge-0/status", "strategic-merge", &json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]}})).await.ok();
    eventually("people are told", async || {
        let events = c
            .get("/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Dedge-0")
            .await
            .ok();
        let mut reasons: Vec<String> = events["items"]
            .as_array()?
            .iter()
            .map(|e| e["reason"].as_str().unwrap().to_owned())
            .collect();
        reasons.sort();
        (reasons == ["NodeNotReady", "NodeReady", "RegisteredNode"]).then_some(())
    })
    .await;
    eventually("the taints are gone", async || {
        c.get("/api/v1/nodes/edge-0").await.ok()["spec"]
            .get("taints")
            .is_none()
            .then_some(())
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn kubectls_protobuf_is_understood() {
    let (_dir, server) = server().await;
    // runtime.Unknown{TypeMeta{v1, Namespace}, raw: Namespace{metadata{name: demo}}}
    let mut body = b"k8s\0".to_vec();
    body.extend(b"\x0a\x0f\x0a\x02v1\x12\x09Namespace");
    body.extend(b"\x12\x10\x0a\x0a\x0a\x04demo\x12\x00\x1a\x00\x12\x00\x1a\x00");
    let made = server
        .client
        .send(
            Method::POST,
            "/api/v1/namespaces?fieldValidation=Strict",
            "application/vnd.kubernetes.protobuf",
            body,
        )
        .await
        .ok();
    assert_eq!(made["metadata"]["name"], "demo");
    server.stop().await;
}
