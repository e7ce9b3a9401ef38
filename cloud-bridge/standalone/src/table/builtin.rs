//! The columns of built-in kinds, as Kubernetes prints them.

use super::{apps, count};
use crate::meta::{array, condition, is_deleting, text};
use crate::time::age_of;
use serde_json::{Value, json};

pub(super) type Column = (&'static str, &'static str, i64);
type Cells = fn(&Value) -> Vec<Value>;

pub(super) fn age(object: &Value) -> Value {
    json!(age_of(Some(text(object, "/metadata/creationTimestamp"))))
}

pub(super) fn name(object: &Value) -> Value {
    json!(text(object, "/metadata/name"))
}

pub(super) fn or_none(text: &str) -> Value {
    match text {
        "" => json!("<none>"),
        text => json!(text),
    }
}

/// The columns of a kind and what fills them; other kinds have Name and Created At.
pub fn columns(storage: &str) -> (&'static [Column], Cells) {
    match storage {
        "/namespaces" => (
            &[
                ("Name", "string", 0),
                ("Status", "string", 0),
                ("Age", "string", 0),
            ],
            |o| vec![name(o), json!(text(o, "/status/phase")), age(o)],
        ),
        "/nodes" => (NODE, node),
        "/pods" => (POD, pod),
        "/configmaps" => (
            &[
                ("Name", "string", 0),
                ("Data", "integer", 0),
                ("Age", "string", 0),
            ],
            |o| {
                vec![
                    name(o),
                    json!(count(o, "/data") + count(o, "/binaryData")),
                    age(o),
                ]
            },
        ),
        "/secrets" => (
            &[
                ("Name", "string", 0),
                ("Type", "string", 0),
                ("Data", "integer", 0),
                ("Age", "string", 0),
            ],
            |o| {
                vec![
                    name(o),
                    json!(text(o, "/type")),
                    json!(count(o, "/data")),
                    age(o),
                ]
            },
        ),
        "/serviceaccounts" => (
            &[
                ("Name", "string", 0),
                ("Secrets", "integer", 0),
                ("Age", "string", 0),
            ],
            |o| vec![name(o), json!(count(o, "/secrets")), age(o)],
        ),
        "/services" => (SERVICE, service),
        "/endpoints" => (
            &[
                ("Name", "string", 0),
                ("Endpoints", "string", 0),
                ("Age", "string", 0),
            ],
            |o| vec![name(o), endpoints(o), age(o)],
        ),
        "/events" => (EVENT, event),
        "apps/deployments" => (apps::DEPLOYMENT, apps::deployment),
        "apps/replicasets" => (apps::REPLICA_SET, apps::replica_set),
        "apps/daemonsets" => (apps::DAEMON_SET, apps::daemon_set),
        "coordination.k8s.io/leases" => (
            &[
                ("Name", "string", 0),
                ("Holder", "string", 0),
                ("Age", "string", 0),
            ],
            |o| vec![name(o), json!(text(o, "/spec/holderIdentity")), age(o)],
        ),
        "rbac.authorization.k8s.io/rolebindings"
        | "rbac.authorization.k8s.io/clusterrolebindings" => (BINDING, binding),
        _ => (&[("Name", "string", 0), ("Created At", "date", 0)], |o| {
            vec![name(o), json!(text(o, "/metadata/creationTimestamp"))]
        }),
    }
}

const NODE: &[Column] = &[
    ("Name", "string", 0),
    ("Status", "string", 0),
    ("Roles", "string", 0),
    ("Age", "string", 0),
    ("Version", "string", 0),
    ("Internal-IP", "string", 1),
    ("External-IP", "string", 1),
    ("OS-Image", "string", 1),
    ("Kernel-Version", "string", 1),
    ("Container-Runtime", "string", 1),
];

fn node(node: &Value) -> Vec<Value> {
    let mut status = match condition(node, "Ready").map(|c| text(c, "/status")) {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if node["spec"]["unschedulable"] == json!(true) {
        status.push_str(",SchedulingDisabled");
    }
    let mut roles: Vec<&str> = node["metadata"]["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(
            |(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
                Some(role) if !role.is_empty() => Some(role),
                _ if key == "kubernetes.io/role" => value.as_str().filter(|r| !r.is_empty()),
                _ => None,
            },
        )
        .collect();
    roles.sort_unstable();
    roles.dedup();
    let address = |kind: &str| {
        array(node, "/status/addresses")
            .iter()
            .find(|a| text(a, "/type") == kind)
            .map_or("", |a| text(a, "/address"))
    };
    let info = |field: &str| match text(node, &format!("/status/nodeInfo/{field}")) {
        "" => json!("<unknown>"),
        text => json!(text),
    };
    vec![
        name(node),
        json!(status),
        or_none(&roles.join(",")),
        age(node),
        json!(text(node, "/status/nodeInfo/kubeletVersion")),
        or_none(address("InternalIP")),
        or_none(address("ExternalIP")),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

const POD: &[Column] = &[
    ("Name", "string", 0),
    ("Ready", "string", 0),
    ("Status", "string", 0),
    ("Restarts", "string", 0),
    ("Age", "string", 0),
    ("IP", "string", 1),
    ("Node", "string", 1),
    ("Nominated Node", "string", 1),
    ("Readiness Gates", "string", 1),
];

fn pod(pod: &Value) -> Vec<Value> {
    let statuses = array(pod, "/status/containerStatuses");
    let ready = statuses
        .iter()
        .filter(|s| s["ready"] == json!(true))
        .count();
    let restarts: i64 = statuses
        .iter()
        .filter_map(|s| s["restartCount"].as_i64())
        .sum();
    let gates = array(pod, "/spec/readinessGates");
    let met = gates
        .iter()
        .filter(|g| {
            condition(pod, text(g, "/conditionType")).is_some_and(|c| text(c, "/status") == "True")
        })
        .count();
    let last = statuses
        .iter()
        .map(|s| text(s, "/lastState/terminated/finishedAt"))
        .max()
        .filter(|at| restarts > 0 && !at.is_empty());
    let restarts = match last {
        Some(at) => format!("{restarts} ({} ago)", age_of(Some(at))),
        None => restarts.to_string(),
    };
    vec![
        name(pod),
        json!(format!("{ready}/{}", array(pod, "/spec/containers").len())),
        json!(pod_status(pod)),
        json!(restarts),
        age(pod),
        or_none(text(pod, "/status/podIP")),
        or_none(text(pod, "/spec/nodeName")),
        or_none(text(pod, "/status/nominatedNodeName")),
        match gates.len() {
            0 => json!("<none>"),
            all => json!(format!("{met}/{all}")),
        },
    ]
}

/// One word for where a pod is: the phase, or what holds it up.
fn pod_status(pod: &Value) -> String {
    let mut word = match text(pod, "/status/reason") {
        "" => text(pod, "/status/phase").to_owned(),
        reason => reason.to_owned(),
    };
    let inits = array(pod, "/status/initContainerStatuses");
    let mut initializing = false;
    for (i, status) in inits.iter().enumerate() {
        let ended = status.pointer("/state/terminated");
        if ended.is_some_and(|t| t["exitCode"] == json!(0)) || status["started"] == json!(true) {
            continue;
        }
        let reason = [
            text(status, "/state/terminated/reason"),
            text(status, "/state/waiting/reason"),
        ]
        .into_iter()
        .find(|r| !r.is_empty() && *r != "PodInitializing");
        word = match (reason, ended) {
            (Some(reason), _) => format!("Init:{reason}"),
            (None, Some(t)) => format!("Init:ExitCode:{}", t["exitCode"]),
            (None, None) => {
                let total = array(pod, "/spec/initContainers").len().max(inits.len());
                format!("Init:{i}/{total}")
            }
        };
        initializing = true;
        break;
    }
    if !initializing {
        let mut running = false;
        for status in array(pod, "/status/containerStatuses").iter().rev() {
            let waiting = text(status, "/state/waiting/reason");
            let ended = text(status, "/state/terminated/reason");
            if !waiting.is_empty() {
                word = waiting.to_owned();
            } else if !ended.is_empty() {
                word = ended.to_owned();
            } else if let Some(t) = status.pointer("/state/terminated") {
                word = match t["signal"].as_i64() {
                    Some(signal) if signal != 0 => format!("Signal:{signal}"),
                    _ => format!("ExitCode:{}", t["exitCode"]),
                };
            } else if status["ready"] == json!(true) && status.pointer("/state/running").is_some() {
                running = true;
            }
        }
        if word == "Completed" && running {
            word = "Running".into();
        }
    }
    if is_deleting(pod) {
        return match text(pod, "/status/reason") {
            "NodeLost" => "Unknown".into(),
            _ if matches!(text(pod, "/status/phase"), "Succeeded" | "Failed") => word,
            _ => "Terminating".into(),
        };
    }
    word
}

const SERVICE: &[Column] = &[
    ("Name", "string", 0),
    ("Type", "string", 0),
    ("Cluster-IP", "string", 0),
    ("External-IP", "string", 0),
    ("Port(s)", "string", 0),
    ("Age", "string", 0),
    ("Selector", "string", 1),
];

fn service(service: &Value) -> Vec<Value> {
    let ports: Vec<String> = array(service, "/spec/ports")
        .iter()
        .map(|p| match p["nodePort"].as_i64() {
            Some(node) if node > 0 => {
                format!("{}:{node}/{}", p["port"], text(p, "/protocol"))
            }
            _ => format!("{}/{}", p["port"], text(p, "/protocol")),
        })
        .collect();
    let selector: Vec<String> = service["spec"]["selector"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or("")))
        .collect();
    vec![
        name(service),
        json!(text(service, "/spec/type")),
        or_none(text(service, "/spec/clusterIP")),
        json!("<none>"),
        or_none(&ports.join(",")),
        age(service),
        or_none(&selector.join(",")),
    ]
}

fn endpoints(object: &Value) -> Value {
    let mut all = Vec::new();
    for subset in array(object, "/subsets") {
        for address in array(subset, "/addresses") {
            for port in array(subset, "/ports") {
                all.push(format!("{}:{}", text(address, "/ip"), port["port"]));
            }
        }
    }
    let more = all.len().saturating_sub(3);
    all.truncate(3);
    match more {
        0 => or_none(&all.join(",")),
        more => json!(format!("{} + {more} more...", all.join(","))),
    }
}

const EVENT: &[Column] = &[
    ("Last Seen", "string", 0),
    ("Type", "string", 0),
    ("Reason", "string", 0),
    ("Object", "string", 0),
    ("Subobject", "string", 1),
    ("Source", "string", 1),
    ("Message", "string", 0),
    ("First Seen", "string", 1),
    ("Count", "string", 1),
    ("Name", "string", 1),
];

fn event(event: &Value) -> Vec<Value> {
    let pick = |pointers: &[&str]| {
        pointers
            .iter()
            .map(|p| text(event, p))
            .find(|t| !t.is_empty())
            .unwrap_or("")
            .to_owned()
    };
    let first = pick(&["/firstTimestamp", "/eventTime"]);
    let last = pick(&[
        "/series/lastObservedTime",
        "/lastTimestamp",
        "/firstTimestamp",
        "/eventTime",
    ]);
    let kind = text(event, "/involvedObject/kind").to_lowercase();
    let object = match text(event, "/involvedObject/name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let component = pick(&["/source/component", "/reportingComponent"]);
    let host = pick(&["/source/host", "/reportingInstance"]);
    let source = match host.is_empty() {
        true => component,
        false => format!("{component}, {host}"),
    };
    let count = event
        .pointer("/series/count")
        .or_else(|| event.get("count"))
        .and_then(Value::as_i64)
        .filter(|c| *c > 0)
        .unwrap_or(1);
    let seen = |at: &str| match at {
        "" => json!("<unknown>"),
        at => json!(age_of(Some(at))),
    };
    vec![
        seen(&last),
        json!(text(event, "/type")),
        json!(text(event, "/reason")),
        json!(object),
        json!(text(event, "/involvedObject/fieldPath")),
        json!(source),
        json!(text(event, "/message").trim()),
        seen(&first),
        json!(count.to_string()),
        name(event),
    ]
}

const BINDING: &[Column] = &[
    ("Name", "string", 0),
    ("Role", "string", 0),
    ("Age", "string", 0),
    ("Users", "string", 1),
    ("Groups", "string", 1),
    ("ServiceAccounts", "string", 1),
];

fn binding(binding: &Value) -> Vec<Value> {
    let subjects = |kind: &str| {
        let names: Vec<String> = array(binding, "/subjects")
            .iter()
            .filter(|s| text(s, "/kind") == kind)
            .map(|s| match (kind, text(s, "/namespace")) {
                ("ServiceAccount", ns) => format!("{ns}/{}", text(s, "/name")),
                _ => text(s, "/name").to_owned(),
            })
            .collect();
        json!(names.join(", "))
    };
    let role = format!(
        "{}/{}",
        text(binding, "/roleRef/kind"),
        text(binding, "/roleRef/name")
    );
    vec![
        name(binding),
        json!(role),
        age(binding),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_cell_for_each_column() {
        for storage in [
            "/namespaces",
            "/nodes",
            "/pods",
            "/configmaps",
            "/secrets",
            "/serviceaccounts",
            "/services",
            "/endpoints",
            "/events",
            "apps/deployments",
            "apps/replicasets",
            "apps/daemonsets",
            "coordination.k8s.io/leases",
            "rbac.authorization.k8s.io/rolebindings",
            "x.io/other",
        ] {
            let (columns, cells) = columns(storage);
            assert_eq!(cells(&json!({})).len(), columns.len(), "{storage}");
        }
    }

    #[test]
    fn a_node_shows_readiness_roles_and_cordon() {
        let cells = node(&json!({
            "metadata": {"name": "n", "labels": {"node-role.kubernetes.io/edge": ""}},
            "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]},
        }));
        assert_eq!(cells[1], "NotReady,SchedulingDisabled");
        assert_eq!(cells[2], "edge");
    }

    #[test]
    fn a_pod_shows_what_holds_it_up() {
        for (status, word) in [
            (json!({"phase": "Pending"}), "Pending"),
            (
                json!({"phase": "Running", "containerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
                "CrashLoopBackOff",
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": [{"state": {"running": {}}}]}),
                "Init:0/1",
            ),
        ] {
            assert_eq!(pod_status(&json!({"status": status})), word);
        }
        let going = json!({"metadata": {"deletionTimestamp": "x"}, "status": {"phase": "Running"}});
        assert_eq!(pod_status(&going), "Terminating");
    }
}
