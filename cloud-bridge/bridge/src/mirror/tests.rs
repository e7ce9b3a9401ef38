use super::read::marked;
use super::*;
use crate::rows::{NODE_LABEL, NODES_ANNOTATION};
use serde_json::json;

fn mirror() -> Mirror {
    Mirror::new(&vec![1; ROWS.len()], 1)
}

fn feed(mirror: &mut Mirror, node: &str) -> Arc<Feed> {
    let feed = Arc::new(Feed::default());
    mirror.subscribe(node, feed.clone());
    feed
}

fn device(node: &str, model: &str, uid: &str) -> Value {
    json!({
        "metadata": { "name": "pump", "namespace": "plant", "uid": uid, "resourceVersion": "5" },
        "spec": { "nodeName": node, "deviceModelRef": { "name": model } },
    })
}

fn pump() -> Key {
    Key::new("plant", "pump")
}

fn rows(dirty: &Dirty) -> Vec<(&'static str, String)> {
    dirty
        .objects
        .iter()
        .map(|(row, key)| (ROWS[*row].kind, key.name.clone()))
        .collect()
}

#[test]
fn a_device_that_moves_concerns_both_nodes_and_takes_its_model_along() {
    let mut m = mirror();
    let (a, b) = (feed(&mut m, "a"), feed(&mut m, "b"));
    let model = Key::new("plant", "m");
    m.apply(
        row_of(MODEL),
        model.clone(),
        json!({ "metadata": { "uid": "mu" } }),
    );
    assert_eq!(a.take(), Dirty::default());
    m.apply(row_of(DEVICE), pump(), device("a", "m", "u"));
    assert_eq!(
        rows(&a.take()),
        [("devicemodel", "m".into()), ("device", "pump".into())]
    );
    assert!(m.wanted("a", row_of(MODEL), &model).is_some());
    assert!(m.wanted("b", row_of(MODEL), &model).is_none());
    m.apply(row_of(DEVICE), pump(), device("b", "m", "u"));
    assert_eq!(rows(&a.take()).len(), 2);
    assert_eq!(rows(&b.take()).len(), 2);
    assert!(m.wanted("a", row_of(MODEL), &model).is_none());
    assert!(m.wanted("b", row_of(DEVICE), &pump()).is_some());
}

#[test]
fn a_status_of_the_device_is_no_news_for_its_node_but_its_summary_is_kept() {
    let mut m = mirror();
    let a = feed(&mut m, "a");
    m.apply(row_of(DEVICE), pump(), device("a", "m", "u"));
    let before = m.wanted("a", row_of(DEVICE), &pump()).unwrap();
    a.take();
    let mut with_status = device("a", "m", "u");
    with_status["status"] = json!({ "state": "online" });
    with_status["metadata"]["resourceVersion"] = json!("6");
    m.apply(row_of(DEVICE), pump(), with_status);
    assert_eq!(m.wanted("a", row_of(DEVICE), &pump()).unwrap(), before);
    assert_eq!(
        m.device(&pump()).unwrap().summary,
        summary(&json!({ "state": "online" }))
    );
}

#[test]
fn a_list_that_was_not_read_is_unknown_and_never_empty() {
    let mut m = mirror();
    let row = row_of("configmap");
    assert!(!m.settled(row) && !m.complete(row));
    m.failed(row, 0);
    assert!(m.settled(row) && !m.complete(row));
    m.listed(row, 0, None, &BTreeSet::new());
    assert!(m.complete(row));
    m.failed(row, 0);
    assert!(
        m.complete(row),
        "a later failure does not make the last list untrue"
    );
}

#[test]
fn which_models_a_node_needs_is_known_only_with_its_devices() {
    let mut m = mirror();
    m.listed(row_of(MODEL), 0, None, &BTreeSet::new());
    assert!(!m.complete(row_of(MODEL)));
    let a = feed(&mut m, "a");
    m.listed(row_of(DEVICE), 0, None, &BTreeSet::new());
    assert!(m.complete(row_of(MODEL)));
    assert_eq!(a.take().lists.len(), 2);
}

#[test]
fn a_new_list_deletes_what_it_lacks_in_its_own_namespace_only() {
    let mut m = mirror();
    m.apply(row_of(DEVICE), pump(), device("a", "m", "u"));
    m.apply(
        row_of(DEVICE),
        Key::new("other", "x"),
        device("a", "m", "v"),
    );
    let gone = m.listed(row_of(DEVICE), 0, Some("plant"), &BTreeSet::new());
    assert_eq!(gone, [(pump(), "u".to_owned())]);
    assert!(m.device(&Key::new("other", "x")).is_some());
}

#[test]
fn labels_and_annotations_say_which_nodes_get_an_object() {
    let object = |label: Option<&str>, nodes: Option<&str>| {
        let mut value = json!({ "metadata": { "labels": {}, "annotations": {} } });
        if let Some(label) = label {
            value["metadata"]["labels"][NODE_LABEL] = json!(label);
        }
        if let Some(nodes) = nodes {
            value["metadata"]["annotations"][NODES_ANNOTATION] = json!(nodes);
        }
        marked(&value)
    };
    assert_eq!(
        object(None, Some("a")),
        Nodes::None,
        "without the label it is not watched"
    );
    assert!(object(Some("a"), None).has("a"));
    let both = object(Some("a"), Some("b, c"));
    assert!(both.has("a") && both.has("b") && both.has("c") && !both.has("d"));
    assert!(object(Some(""), Some("*")).has("any"));
    assert_eq!(object(Some(""), None), Nodes::None);
    let ca =
        json!({ "metadata": { "labels": { NODE_LABEL: "a", "edgebus.io/role": "enrolment-ca" } } });
    assert_eq!(marked(&ca), Nodes::None);
}

#[test]
fn a_secret_goes_to_the_sealed_tree() {
    let mut m = mirror();
    let row = row_of("secret");
    let key = Key::new("plant", "plc");
    let object = json!({ "metadata": { "uid": "u", "labels": { NODE_LABEL: "a" } }, "data": { "p": "eA==" } });
    m.apply(row, key.clone(), object);
    let wanted = m.wanted("a", row, &key).unwrap();
    assert!(
        wanted.topic.ends_with("/sealed/secret/plant/plc"),
        "{}",
        wanted.topic
    );
    assert!(m.wanted("b", row, &key).is_none());
}

#[test]
fn a_status_whose_device_is_gone_is_an_orphan_once_all_lists_are_known() {
    let mut m = mirror();
    let status = StatusRef {
        uid: "s".into(),
        owner: "u".into(),
        seen: None,
    };
    m.apply_status(pump(), status.clone());
    m.statuses_listed(None, &BTreeSet::from([pump()]));
    assert_eq!(m.orphans(), []);
    m.apply(row_of(DEVICE), pump(), device("a", "m", "u"));
    m.listed(row_of(DEVICE), 0, None, &BTreeSet::from([pump()]));
    assert_eq!(m.orphans(), []);
    m.apply(row_of(DEVICE), pump(), device("a", "m", "u2"));
    assert_eq!(m.orphans(), [(pump(), status)]);
}

#[test]
fn a_cordoned_node_is_told_and_a_new_heartbeat_is_not() {
    let mut m = mirror();
    let a = feed(&mut m, "a");
    m.apply_node("a", &json!({ "metadata": { "uid": "u" } }));
    assert!(a.take().node);
    m.apply_node("a", &json!({ "metadata": { "uid": "u" }, "status": { "conditions": [{ "type": "Ready", "status": "True" }] } }));
    assert!(a.take().node, "whether it is Ready is news for its link");
    let spec = m.node_spec("a").unwrap();
    m.apply_node("a", &json!({ "metadata": { "uid": "u" }, "status": { "conditions": [{ "type": "Ready", "status": "True", "lastHeartbeatTime": "x" }] } }));
    assert!(!a.take().node);
    assert_eq!(m.node_spec("a").unwrap(), spec);
    assert_eq!(m.node("a").unwrap().ready, "True");
    m.apply_node(
        "a",
        &json!({ "metadata": { "uid": "u" }, "spec": { "unschedulable": true } }),
    );
    assert!(a.take().node);
}
