//! What must hold after a blow.

use super::load::TOPICS;
use super::{LAMP, NODE, PUMP, Stage, Summary};
use crate::api::reported;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

/// Within this everything is as it should be, on a loaded machine too.
const WITHIN: Duration = Duration::from_secs(30);

/// Tries until it is so; what it said last otherwise.
fn within(mut check: impl FnMut() -> Result<(), String>) -> Result<(), String> {
    let end = Instant::now() + WITHIN;
    loop {
        match check() {
            Ok(()) => return Ok(()),
            Err(why) if Instant::now() > end => return Err(why),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

impl Stage {
    /// All checks; `hit` are those whose process may be another one than `before`.
    pub(super) fn check(
        &mut self,
        before: &BTreeMap<String, u32>,
        hit: &BTreeSet<String>,
        blow: &str,
        summary: &mut Summary,
    ) {
        let result = within(|| self.all_up());
        note(summary, blow, "every unit is up", result);
        let result = within(|| self.kube.node_ready(NODE));
        note(summary, blow, "the node is Ready", result);
        let result = self.ledger_holds();
        note(summary, blow, "what was acknowledged is retained", result);
        self.check_devices(blow, summary);
        let result = self.lamp_follows();
        note(
            summary,
            blow,
            "the lamp's acknowledged reports are in its DeviceStatus",
            result,
        );
        let result = self.config_follows();
        note(summary, blow, "a ConfigMap is on the bus", result);
        let after = self.pids();
        let moved: Vec<_> = before
            .iter()
            .filter(|(name, pid)| !hit.contains(*name) && after.get(*name) != Some(*pid))
            .collect();
        let same = if moved.is_empty() {
            Ok(())
        } else {
            Err(format!("other processes: {moved:?}, now {after:?}"))
        };
        note(summary, blow, "nobody else was restarted", same);
        let panics: Vec<String> = [&self.node.dir, &self.cloud.dir]
            .iter()
            .flat_map(|d| panics(d))
            .collect();
        note(
            summary,
            blow,
            "nothing panicked",
            if panics.is_empty() {
                Ok(())
            } else {
                Err(panics.join("; "))
            },
        );
    }

    /// The polled device, both ways, and the account of its writes.
    pub(super) fn check_devices(&mut self, blow: &str, summary: &mut Summary) {
        let Some(last) = self.desire.hold(WITHIN) else {
            note(
                summary,
                blow,
                "the API takes a desired value",
                Err("it took none".into()),
            );
            self.desire.go_on();
            return;
        };
        let result = within(|| match self.plant.get(1, 0) {
            value if value == last => Ok(()),
            other => Err(format!(
                "desired is {last}, the register {other}; last writes {:?}",
                self.plant
                    .writes()
                    .iter()
                    .rev()
                    .take(5)
                    .map(|w| w.value)
                    .collect::<Vec<_>>()
            )),
        });
        note(
            summary,
            blow,
            "the last desired value is in the register",
            result,
        );
        // Each desired value is another, so that a second write of one, or of an old one, shows.
        let writes: Vec<u16> = self.plant.writes().iter().map(|w| w.value).collect();
        let asked = self.desire.asked();
        let wrong: Vec<_> = writes
            .windows(2)
            .filter(|w| w[1] <= w[0] || w[1] > asked)
            .collect();
        let result = if wrong.is_empty() {
            Ok(())
        } else {
            Err(format!(
                "of {} writes these follow each other: {wrong:?}",
                writes.len()
            ))
        };
        note(
            summary,
            blow,
            "each desired value was written at most once, in order",
            result,
        );
        self.turn += 1;
        self.plant.set(1, 1, self.turn);
        let wanted = (Some(last.to_string()), Some(self.turn.to_string()));
        let result = within(|| {
            let status = self.kube.get("devicestatuses", PUMP)?;
            let seen = (reported(&status, "target"), reported(&status, "actual"));
            let state = &status["status"]["state"];
            if seen == wanted && state == "online" {
                Ok(())
            } else {
                Err(format!(
                    "wanted {wanted:?}, DeviceStatus has {seen:?} and {state}"
                ))
            }
        });
        note(
            summary,
            blow,
            "the DeviceStatus shows both registers",
            result,
        );
        self.desire.go_on();
    }

    fn all_up(&self) -> Result<(), String> {
        let state = self.node.state()?;
        let units = state["units"].as_object().cloned().unwrap_or_default();
        let wanted = ["broker", "link", "edged", "devicetwin", "modbus", "virtual"];
        let down: Vec<_> = wanted
            .iter()
            .filter(|u| {
                units
                    .get(**u)
                    .is_none_or(|s| s["state"] != "up" && s["state"] != "running")
            })
            .collect();
        if down.is_empty() {
            Ok(())
        } else {
            Err(format!("not up: {down:?} in {state}"))
        }
    }

    /// Publishing goes on meanwhile: acknowledged before ≤ retained ≤ sent after.
    fn ledger_holds(&self) -> Result<(), String> {
        let before = self.ledger.accounts();
        let (code, out, err) = self.node.edgebus(&["sub", "--retained-only", "app/soak/#"]);
        if code != 0 {
            return Err(format!("`edgebus sub` failed: {err}"));
        }
        let after = self.ledger.accounts();
        let mut retained = BTreeMap::new();
        for line in out.lines() {
            let Some((topic, number)) = line.split_once(' ') else {
                continue;
            };
            let which = topic
                .strip_prefix("app/soak/")
                .and_then(|n| n.parse::<usize>().ok());
            if let (Some(which), Ok(number)) = (which, number.trim().parse::<u64>()) {
                retained.insert(which, number);
            }
        }
        let mut wrong = Vec::new();
        for which in 0..TOPICS {
            let (low, high) = (before[which].acknowledged, after[which].sent);
            match retained.get(&which) {
                Some(number) if (low..=high).contains(number) => {}
                None if low == 0 => {}
                other => wrong.push(format!(
                    "app/soak/{which}: retained {other:?}, acknowledged {low}, sent {high}"
                )),
            }
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(wrong.join("; "))
        }
    }

    fn lamp_follows(&self) -> Result<(), String> {
        self.ledger.hold_lamp(true);
        let result = within(|| {
            let account = self.ledger.accounts()[TOPICS];
            let status = self.kube.get("devicestatuses", LAMP)?;
            let level = reported(&status, "level")
                .and_then(|v| v.parse::<u64>().ok())
                .unwrap_or(0);
            if (account.acknowledged..=account.sent).contains(&level) {
                Ok(())
            } else {
                Err(format!("DeviceStatus has {level}, {account:?}"))
            }
        });
        self.ledger.hold_lamp(false);
        result
    }

    fn config_follows(&self) -> Result<(), String> {
        let turn = self.turn.to_string();
        within(|| {
            self.kube
                .patch("configmaps", "soak", &json!({ "data": { "turn": turn } }))
        })?;
        within(|| {
            match self.node.retained("edge/v1/obj/configmap/default/soak")?["obj"]["data"]["turn"]
                .take()
            {
                Value::String(seen) if seen == turn => Ok(()),
                other => Err(format!("wanted {turn}, the bus has {other}")),
            }
        })
    }
}

fn note(summary: &mut Summary, blow: &str, what: &str, result: Result<(), String>) {
    summary.checks += 1;
    let took = summary.mark.map_or(Duration::ZERO, |m| m.elapsed());
    summary.mark = Some(Instant::now());
    if took > summary.longest.0 {
        summary.longest = (took, what.to_owned());
    }
    if let Err(why) = result {
        summary
            .violations
            .push(format!("{blow}: not so: {what}; {why}"));
    }
}

/// Lines of the logs in this folder that tell of a panic.
fn panics(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().extension().is_none_or(|e| e != "log") {
            continue;
        }
        // A process that is killed may leave half a character.
        let text =
            String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap_or_default()).into_owned();
        found.extend(
            text.lines()
                .filter(|l| l.contains("panicked"))
                .map(|l| format!("{}: {l}", entry.path().display())),
        );
    }
    found
}
