//! Kubernetes' NodeStatus from what the machine says. Pure.

use crate::condition::Kind;
use crate::machine::{Facts, Figures, architecture};
use edgebus_bus::payload::Object;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Pods that a node runs at most: kubelet's default.
const PODS: u32 = 110;
/// Memory that is never given to pods.
const RESERVED_KIB: u64 = 102_400;

/// The version in kubelet's place: the Kubernetes it speaks, and ours.
pub(crate) fn kubelet_version() -> String {
    format!("v1.33.0-edgebus.{}", env!("CARGO_PKG_VERSION"))
}

/// Conditions over time: when each last changed.
#[derive(Debug, Default)]
pub(crate) struct Conditions {
    last: BTreeMap<&'static str, (bool, String)>,
}

impl Conditions {
    /// The conditions now. `trouble` is why the node is not ready, if it is not.
    pub fn step(&mut self, figures: &Figures, trouble: Option<&str>, now: &str) -> Vec<Value> {
        let mut out = Vec::new();
        for kind in Kind::ALL {
            let [name, ..] = kind.words(false);
            let was = self.last.get(name).is_some_and(|(short, _)| *short);
            let short = kind.is_short(figures, was);
            let [_, reason, message] = kind.words(short);
            out.push(self.one(name, short, reason, message, now));
        }
        let (reason, message) = match trouble {
            None => ("KubeletReady", "edged is at work"),
            Some(why) => ("KubeletNotReady", why),
        };
        out.push(self.one("Ready", trouble.is_none(), reason, message, now));
        out
    }

    fn one(
        &mut self,
        name: &'static str,
        holds: bool,
        reason: &str,
        message: &str,
        now: &str,
    ) -> Value {
        let since = match self.last.get(name) {
            Some((held, since)) if *held == holds => since.clone(),
            _ => now.to_owned(),
        };
        self.last.insert(name, (holds, since.clone()));
        json!({
            "type": name,
            "status": if holds { "True" } else { "False" },
            "reason": reason,
            "message": message,
            "lastTransitionTime": since,
        })
    }
}

/// The whole status. It holds nothing that changes all the time: an unchanged node is said once.
pub(crate) fn status(node: &str, facts: &Facts, conditions: Vec<Value>) -> Object {
    let memory = |kib: u64| format!("{kib}Ki");
    // Never all of it away, on however small a machine.
    let reserved = RESERVED_KIB.min(facts.memory_kib / 10);
    let mut addresses = Vec::new();
    if let Some(ip) = facts.address {
        addresses.push(json!({ "type": "InternalIP", "address": ip.to_string() }));
    }
    // As a kubelet with `--hostname-override`: the name that it was joined by, like the label
    // `kubernetes.io/hostname`.
    addresses.push(json!({ "type": "Hostname", "address": node }));
    let status = json!({
        "capacity": {
            "cpu": facts.cpus.to_string(),
            "memory": memory(facts.memory_kib),
            "ephemeral-storage": memory(facts.disk_bytes / 1024),
            "pods": PODS.to_string(),
        },
        "allocatable": {
            "cpu": facts.cpus.to_string(),
            "memory": memory(facts.memory_kib - reserved),
            "ephemeral-storage": memory(facts.disk_bytes / 1024 / 10 * 9),
            "pods": PODS.to_string(),
        },
        "conditions": conditions,
        "addresses": addresses,
        "nodeInfo": {
            "machineID": facts.machine_id,
            "systemUUID": facts.system_uuid,
            "bootID": facts.boot_id,
            "kernelVersion": facts.kernel,
            "osImage": facts.os_image,
            "operatingSystem": "linux",
            "architecture": architecture(),
            "kubeletVersion": kubelet_version(),
            "kubeProxyVersion": "",
            // The API wants the field; there is no runtime to name yet.
            "containerRuntimeVersion": "",
        },
    });
    match status {
        Value::Object(object) => object,
        _ => Object::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: Figures = Figures {
        memory_kib: 1_000_000,
        memory_free_kib: 900_000,
        disk_bytes: 1_000_000,
        disk_free_bytes: 900_000,
        inodes: 0,
        inodes_free: 0,
        pids: 1000,
        pids_used: 10,
    };

    #[test]
    fn a_condition_keeps_its_time_until_it_changes() {
        let mut c = Conditions::default();
        let first = c.step(&FINE, None, "t1");
        assert_eq!(c.step(&FINE, None, "t2"), first);
        let short = Figures {
            memory_free_kib: 1000,
            ..FINE
        };
        let third = c.step(&short, Some("no disk"), "t3");
        let find = |name: &str| third.iter().find(|c| c["type"] == name).unwrap();
        assert_eq!(find("MemoryPressure")["status"], "True");
        assert_eq!(find("MemoryPressure")["lastTransitionTime"], "t3");
        assert_eq!(find("DiskPressure")["lastTransitionTime"], "t1");
        assert_eq!(find("Ready")["status"], "False");
        assert_eq!(find("Ready")["message"], "no disk");
    }

    #[test]
    fn what_pods_may_use_is_less_than_there_is() {
        let facts = Facts {
            cpus: 2,
            memory_kib: 2_048_000,
            disk_bytes: 10 * 1024 * 1000,
            address: Some([10, 0, 0, 7].into()),
            ..Facts::default()
        };
        let s = status("gw", &facts, vec![]);
        assert_eq!(s["capacity"]["memory"], "2048000Ki");
        assert_eq!(s["allocatable"]["memory"], "1945600Ki");
        assert_eq!(s["allocatable"]["ephemeral-storage"], "9000Ki");
        assert_eq!(s["addresses"][0]["address"], "10.0.0.7");
        assert_eq!(s["addresses"][1]["address"], "gw");
        let version = s["nodeInfo"]["kubeletVersion"].as_str().unwrap();
        assert!(version.starts_with("v1.33.0-edgebus."), "{version}");
    }
}
