//! Deployments, ReplicaSets and DaemonSets: what is filled in, and that the selector finds the
//! pods of the template and stays as it was.

use super::{fill, pod};
use crate::meta::text;
use crate::ops::selector::Labels;
use crate::schema::Cause;
use serde_json::{Value, json};

pub fn default_deployment(object: &mut Value) {
    default_template(object);
    let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else {
        return;
    };
    fill(spec, "replicas", 1);
    fill(spec, "revisionHistoryLimit", 10);
    fill(spec, "progressDeadlineSeconds", 600);
    let limits = [("maxUnavailable", json!("25%")), ("maxSurge", json!("25%"))];
    default_rollout(spec, "strategy", limits);
}

pub fn default_replica_set(object: &mut Value) {
    default_template(object);
    if let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) {
        fill(spec, "replicas", 1);
    }
}

pub fn default_daemon_set(object: &mut Value) {
    default_template(object);
    let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else {
        return;
    };
    fill(spec, "revisionHistoryLimit", 10);
    let limits = [("maxUnavailable", json!(1)), ("maxSurge", json!(0))];
    default_rollout(spec, "updateStrategy", limits);
}

fn default_template(object: &mut Value) {
    if let Some(spec) = object.pointer_mut("/spec/template/spec") {
        pod::default_spec(spec);
    }
}

fn default_rollout(spec: &mut Value, field: &str, limits: [(&str, Value); 2]) {
    fill(spec, field, json!({}));
    let strategy = &mut spec[field];
    if !strategy.is_object() {
        return;
    }
    fill(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        fill(strategy, "rollingUpdate", json!({}));
        for (limit, value) in limits {
            fill(&mut strategy["rollingUpdate"], limit, value);
        }
    }
}

pub fn validate(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let spec = &object["spec"];
    let selector = &spec["selector"];
    let labels = &spec["template"]["metadata"]["labels"];
    if selector.is_null() {
        causes.push(Cause::required("spec.selector", ""));
    } else {
        let invalid = |why: &str| Cause::invalid("spec.selector", &selector.to_string(), why);
        match Labels::of_selector(selector) {
            Err(error) => causes.push(invalid(&error.message)),
            Ok(wanted) if wanted.is_empty() => {
                causes.push(invalid("an empty selector would take every pod"));
            }
            Ok(wanted) if !wanted.match_labels(labels) => causes.push(Cause::invalid(
                "spec.template.metadata.labels",
                &labels.to_string(),
                "`selector` does not match template `labels`",
            )),
            Ok(_) => {}
        }
        if old.is_some_and(|old| old["spec"]["selector"] != *selector) {
            causes.push(invalid("field is immutable"));
        }
    }
    if let Some(replicas) = spec["replicas"].as_i64().filter(|r| *r < 0) {
        causes.push(Cause::invalid(
            "spec.replicas",
            &replicas.to_string(),
            "must be greater than or equal to 0",
        ));
    }
    let pod = &spec["template"]["spec"];
    causes.extend(pod::validate_containers(pod, "spec.template.spec"));
    let policy = text(pod, "/restartPolicy");
    if !matches!(policy, "" | "Always") {
        causes.push(Cause::not_supported(
            "spec.template.spec.restartPolicy",
            &format!("{policy:?}"),
            &["\"Always\"".into()],
        ));
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment() -> Value {
        let mut object = json!({"spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web", "x": "y"}},
            "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}});
        default_deployment(&mut object);
        object
    }

    #[test]
    fn a_bare_deployment_is_filled_in() {
        let object = deployment();
        let spec = &object["spec"];
        assert_eq!(spec["replicas"], 1);
        assert_eq!(
            spec["strategy"],
            json!({"type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
        );
        assert_eq!(spec["template"]["spec"]["restartPolicy"], "Always");
        assert_eq!(validate(&object, Some(&object)), []);
        let mut recreate = json!({"spec": {"strategy": {"type": "Recreate"}}});
        default_deployment(&mut recreate);
        assert_eq!(recreate["spec"]["strategy"], json!({"type": "Recreate"}));
    }

    #[test]
    fn a_selector_that_would_not_find_its_pods_is_refused() {
        let good = deployment();
        for (path, value, field) in [
            ("/spec/selector", json!(null), "spec.selector"),
            ("/spec/selector", json!({}), "spec.selector"),
            (
                "/spec/template/metadata/labels",
                json!({"app": "api"}),
                "spec.template.metadata.labels",
            ),
            ("/spec/replicas", json!(-1), "spec.replicas"),
            (
                "/spec/template/spec/containers",
                json!([]),
                "spec.template.spec.containers",
            ),
            (
                "/spec/template/spec/restartPolicy",
                json!("Never"),
                "spec.template.spec.restartPolicy",
            ),
        ] {
            let mut bad = good.clone();
            *bad.pointer_mut(path).unwrap() = value;
            let causes = validate(&bad, None);
            assert_eq!(causes[0].field, field, "{causes:?}");
        }
        let mut moved = good.clone();
        moved["spec"]["selector"] = json!({"matchLabels": {"x": "y"}});
        assert_eq!(validate(&moved, None), []);
        assert_eq!(validate(&moved, Some(&good)).len(), 1);
    }
}
