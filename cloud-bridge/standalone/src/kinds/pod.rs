//! Pods: defaults that admission and the scheduler rely on, and the fields that stay as
//! they were created.

use super::fill;
use crate::meta::{array, map_at, text};
use crate::schema::Cause;
use serde_json::{Value, json};

/// How long a node may be silent before a pod that says nothing else would be evicted.
const TOLERATION_SECONDS: i64 = 300;

pub fn create(pod: &mut Value) {
    let spec = map_at(pod, "spec");
    spec.entry("serviceAccountName").or_insert(json!("default"));
    let account = spec["serviceAccountName"].clone();
    spec.entry("serviceAccount").or_insert(account);
    let tolerations = spec.entry("tolerations").or_insert(json!([]));
    if let Some(list) = tolerations.as_array_mut() {
        for key in [
            "node.kubernetes.io/not-ready",
            "node.kubernetes.io/unreachable",
        ] {
            let tolerated = list.iter().any(|t| {
                let effect = text(t, "/effect");
                (text(t, "/key") == key
                    || (text(t, "/key").is_empty() && t["operator"] == "Exists"))
                    && (effect.is_empty() || effect == "NoExecute")
            });
            if !tolerated {
                list.push(
                    json!({"key": key, "operator": "Exists", "effect": "NoExecute",
                    "tolerationSeconds": TOLERATION_SECONDS}),
                );
            }
        }
    }
    let class = qos_class(&pod["spec"]);
    pod["status"] = json!({"phase": "Pending", "qosClass": class});
}

pub fn default(pod: &mut Value) {
    let Some(spec) = pod.get_mut("spec").filter(|s| s.is_object()) else {
        return;
    };
    fill(spec, "enableServiceLinks", true);
    default_spec(spec);
    // A limit without a request is also the request.
    for container in containers_mut(spec) {
        let limits = container.pointer("/resources/limits");
        let Some(limits) = limits.and_then(Value::as_object).cloned() else {
            continue;
        };
        let requests = map_at(&mut container["resources"], "requests");
        for (resource, limit) in limits {
            requests.entry(resource).or_insert(limit);
        }
    }
}

/// What is filled in in the spec of a pod as in that of a template of pods.
pub fn default_spec(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    fill(spec, "restartPolicy", "Always");
    fill(spec, "dnsPolicy", "ClusterFirst");
    fill(spec, "schedulerName", "default-scheduler");
    fill(spec, "terminationGracePeriodSeconds", 30);
    fill(spec, "securityContext", json!({}));
    containers_mut(spec).for_each(default_container);
}

fn containers_mut(spec: &mut Value) -> impl Iterator<Item = &mut Value> {
    const FIELDS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];
    spec.as_object_mut()
        .into_iter()
        .flatten()
        .filter(|(field, _)| FIELDS.contains(&field.as_str()))
        .filter_map(|(_, list)| list.as_array_mut())
        .flatten()
}

fn default_container(container: &mut Value) {
    if !container.is_object() {
        return;
    }
    let image = text(container, "/image");
    let last = image.rsplit('/').next().unwrap_or(image);
    let latest =
        !image.contains('@') && last.split_once(':').is_none_or(|(_, tag)| tag == "latest");
    fill(
        container,
        "imagePullPolicy",
        if latest { "Always" } else { "IfNotPresent" },
    );
    fill(container, "terminationMessagePath", "/dev/termination-log");
    fill(container, "terminationMessagePolicy", "File");
    fill(container, "resources", json!({}));
    if let Some(ports) = container.get_mut("ports").and_then(Value::as_array_mut) {
        for port in ports.iter_mut().filter(|p| p.is_object()) {
            fill(port, "protocol", "TCP");
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = container.get_mut(probe).filter(|p| p.is_object()) else {
            continue;
        };
        for (field, value) in [
            ("timeoutSeconds", 1),
            ("periodSeconds", 10),
            ("successThreshold", 1),
            ("failureThreshold", 3),
        ] {
            fill(probe, field, value);
        }
    }
}

/// Guaranteed, Burstable or BestEffort, from the containers' requests and limits.
fn qos_class(spec: &Value) -> &'static str {
    let containers: Vec<&Value> = ["/containers", "/initContainers"]
        .iter()
        .flat_map(|path| array(spec, path))
        .collect();
    let amount = |c: &Value, kind: &str, resource: &str| {
        c.pointer(&format!("/resources/{kind}/{resource}")).cloned()
    };
    let mut any = false;
    let mut all = true;
    for container in containers {
        for resource in ["cpu", "memory"] {
            let limit = amount(container, "limits", resource);
            let request = amount(container, "requests", resource).or_else(|| limit.clone());
            any |= limit.is_some() || request.is_some();
            all &= limit.is_some() && limit == request;
        }
    }
    match (any, all) {
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
        _ => "BestEffort",
    }
}

/// A PUT that leaves out what the server or the scheduler filled in does not take it away.
pub fn update(new: &mut Value, old: &Value) {
    for field in [
        "nodeName",
        "serviceAccountName",
        "serviceAccount",
        "tolerations",
    ] {
        if let (Some(value), true) = (old["spec"].get(field), new["spec"].is_object()) {
            let value = value.clone();
            fill(&mut new["spec"], field, value);
        }
    }
}

/// That containers are there, have names of their own and images; `at` is the path of `spec`.
pub fn validate_containers(spec: &Value, at: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    let containers = array(spec, "/containers");
    if containers.is_empty() {
        causes.push(Cause::required(format!("{at}.containers"), ""));
    }
    for (i, container) in containers.iter().enumerate() {
        let at = |field: &str| format!("{at}.containers[{i}].{field}");
        let own = text(container, "/name");
        if own.is_empty() {
            causes.push(Cause::required(at("name"), ""));
        } else if containers[..i].iter().any(|c| text(c, "/name") == own) {
            causes.push(Cause::duplicate(at("name"), &format!("{own:?}")));
        }
        if text(container, "/image").is_empty() {
            causes.push(Cause::required(at("image"), ""));
        }
    }
    causes
}

pub fn validate(pod: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = validate_containers(&pod["spec"], "spec");
    let policy = text(pod, "/spec/restartPolicy");
    if !matches!(policy, "Always" | "OnFailure" | "Never") {
        let allowed = ["Always", "Never", "OnFailure"].map(|a| format!("{a:?}"));
        causes.push(Cause::not_supported(
            "spec.restartPolicy",
            &format!("{policy:?}"),
            &allowed,
        ));
    }
    if let Some(old) = old
        && frozen(pod) != frozen(old)
    {
        causes.push(Cause::forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
        ));
    }
    causes
}

/// The spec without what may change after creation.
fn frozen(pod: &Value) -> Value {
    let mut spec = pod["spec"].clone();
    if let Some(fields) = spec.as_object_mut() {
        for free in [
            "activeDeadlineSeconds",
            "tolerations",
            "ephemeralContainers",
            "schedulingGates",
        ] {
            fields.remove(free);
        }
    }
    for field in ["containers", "initContainers"] {
        for container in spec
            .get_mut(field)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            if let Some(container) = container.as_object_mut() {
                container.remove("image");
            }
        }
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Value {
        let mut pod = json!({"spec": {"containers": [{"name": "c", "image": "reg:5000/busybox"}]}});
        default(&mut pod);
        create(&mut pod);
        pod
    }

    #[test]
    fn a_bare_pod_is_filled_in() {
        let pod = pod();
        assert_eq!(pod["spec"]["restartPolicy"], "Always");
        assert_eq!(pod["spec"]["containers"][0]["imagePullPolicy"], "Always");
        assert_eq!(
            pod["status"],
            json!({"phase": "Pending", "qosClass": "BestEffort"})
        );
        assert_eq!(pod["spec"]["tolerations"].as_array().unwrap().len(), 2);
        assert!(pod["spec"].get("initContainers").is_none());
        assert!(validate(&pod, None).is_empty());
    }

    #[test]
    fn a_put_without_node_name_does_not_unbind() {
        let mut old = pod();
        old["spec"]["nodeName"] = json!("edge-0");
        let mut new = pod();
        update(&mut new, &old);
        assert_eq!(new["spec"]["nodeName"], "edge-0");
        assert!(validate(&new, Some(&old)).is_empty());
        new["spec"]["nodeName"] = json!("edge-1");
        assert_eq!(validate(&new, Some(&old)).len(), 1);
    }

    #[test]
    fn images_may_change_and_commands_may_not() {
        let old = pod();
        let mut new = old.clone();
        new["spec"]["containers"][0]["image"] = json!("other:1");
        assert!(validate(&new, Some(&old)).is_empty());
        new["spec"]["containers"][0]["command"] = json!(["sh"]);
        assert_eq!(validate(&new, Some(&old)).len(), 1);
    }
}
