//! The commands that look at a node's bus, or speak on it, as an operator: `get`, `sub`, `pub`,
//! `explain`. None of them needs the cloud.

use crate::cli::{GetArgs, Output, PubArgs, SubArgs, Visit};
use crate::table;
use anyhow::{Context, Result, bail};
use edgebus_bus::payload::{self, Health, Hello, LinkState, Obj, Twin, Up};
use edgebus_bus::{Name, ROOT, Topic, explain};
use edgebus_client::unit::BadConfig;
use edgebus_client::{Address, Bus, ConnectOptions, Message};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Kinds that cloud-bridge mirrors in the clear.
const MIRRORED: &[&str] = &[
    "configmap",
    "device",
    "devicemodel",
    "pod",
    "serviceaccount",
];
/// A listing of a whole node takes less; a broker that hangs takes longer.
const WAIT: Duration = Duration::from_secs(10);

async fn connect(visit: &Visit) -> Result<Bus> {
    let socket = visit.run_dir.join("admin/admin.sock");
    if !socket.exists() {
        bail!(
            "no edge node runs here: {} does not exist (start one with `edgebus node`, or say --run-dir)",
            socket.display()
        );
    }
    let options = ConnectOptions::visitor(Address::Unix(socket), Name::new("operator")?);
    let bus = Bus::connect(options, CancellationToken::new());
    bus.connected(Duration::from_secs(5)).await?;
    Ok(bus)
}

/// `edgebus get`.
pub async fn get(args: &GetArgs) -> Result<()> {
    let kind = args.kind.to_lowercase();
    let filter = match kind.as_str() {
        "twins" | "twin" | "devices" | "device" | "dev" => format!("{ROOT}/twin/+/+"),
        "units" | "unit" | "health" => format!("{ROOT}/sys/+/health"),
        "mappers" | "mapper" => format!("{ROOT}/mapper/+/hello"),
        "link" => Topic::Link {}.to_string(),
        "node" => Topic::NodeStatus {}.to_string(),
        "all" | "objects" => format!("{ROOT}/obj/+/+/+"),
        "secrets" | "secret" => bail!(
            "Secrets are sealed on this node's bus: only the units that need them can open them"
        ),
        other if MIRRORED.contains(&singular(other).as_str()) => {
            format!("{ROOT}/obj/{}/+/+", singular(other))
        }
        other => bail!(BadConfig(format!(
            "{other:?} is not on a node's bus: devices, units, mappers, link, node, all, or one of {}",
            MIRRORED.join(", ")
        ))),
    };
    let bus = connect(&args.visit).await?;
    let found = bus.snapshot([filter], WAIT).await;
    bus.close().await;
    let mut found = found?;
    found.retain(|topic, _| {
        let mut ends = topic.rsplit('/');
        let (name, ns) = (ends.next().unwrap_or(""), ends.next().unwrap_or(""));
        let named = args.name.as_deref().is_none_or(|n| {
            topic.split('/').any(|level| level == n) && (n == name || kind != "twins")
        });
        named
            && (args.namespace.as_deref().is_none_or(|n| n == ns)
                || !topic.contains("/twin/") && !topic.contains("/obj/"))
    });
    if let Some(name) = args.name.as_deref().filter(|_| found.is_empty()) {
        bail!("{kind} {name:?} is not on this node");
    }
    let mut values = BTreeMap::new();
    for (topic, payload) in &found {
        let value: Value = payload::read(payload).with_context(|| format!("payload of {topic}"))?;
        values.insert(topic.as_str(), value);
    }
    let text = match args.output {
        Output::Json => serde_json::to_string_pretty(&values)? + "\n",
        Output::Yaml => serde_saphyr::to_string(&values)?,
        Output::Table if values.is_empty() => "nothing found\n".to_owned(),
        Output::Table => shown(&kind, &found)?,
    };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// `pods` → `pod`, `devicestatuses` → `devicestatus`, `configmaps` → `configmap`.
fn singular(kind: &str) -> String {
    let known = match kind {
        "cm" => "configmap",
        "po" => "pod",
        "devmodel" | "devmodels" => "devicemodel",
        _ => kind,
    };
    let one = known.strip_suffix("statuses").map(|k| format!("{k}status"));
    one.unwrap_or_else(|| known.strip_suffix('s').unwrap_or(known).to_owned())
}

fn shown(kind: &str, found: &BTreeMap<String, bytes::Bytes>) -> Result<String> {
    let mut rows = Vec::new();
    let mut head: &[&str] = &["NAMESPACE", "NAME", "REV", "UID"];
    for (topic, payload) in found {
        let parsed = Topic::parse(topic)?;
        rows.push(match parsed {
            Topic::Twin { ns, name } => {
                head = &[
                    "NAMESPACE",
                    "NAME",
                    "MODEL",
                    "MAPPER",
                    "STATE",
                    "SYNCED",
                    "VALUES",
                ];
                let twin: Twin = payload::read(payload)?;
                let synced = synced(&twin);
                let values: Vec<String> = twin
                    .props
                    .iter()
                    .map(|(p, v)| format!("{p}={}", plain(v.reported.as_ref())))
                    .collect();
                vec![
                    ns.to_string(),
                    name.to_string(),
                    twin.model,
                    twin.mapper.unwrap_or_else(|| "-".into()),
                    format!("{:?}", twin.state).to_lowercase(),
                    synced,
                    values.join(" "),
                ]
            }
            Topic::Health { c } => {
                head = &["UNIT", "STATE", "PID", "VERSION", "WHY"];
                let h: Health = payload::read(payload)?;
                let state = match h.state {
                    Up::Up => "up",
                    Up::Degraded => "degraded",
                    Up::Down => "down",
                };
                vec![
                    c.to_string(),
                    state.into(),
                    h.pid.to_string(),
                    h.version,
                    h.why.unwrap_or_default(),
                ]
            }
            Topic::MapperHello { m } => {
                head = &["MAPPER", "PROTOCOL", "VERSION", "FEATURES"];
                let h: Hello = payload::read(payload)?;
                vec![m.to_string(), h.protocol, h.version, h.features.join(",")]
            }
            Topic::Link {} => {
                head = &[
                    "STATE",
                    "SINCE",
                    "RTT MS",
                    "WAITING",
                    "DROPPED",
                    "CERTIFICATE UNTIL",
                    "WHY",
                ];
                let l: LinkState = payload::read(payload)?;
                vec![
                    format!("{:?}", l.state).to_lowercase(),
                    l.since,
                    l.rtt_ms.map_or("-".into(), |ms| format!("{ms:.1}")),
                    l.spool.rows.to_string(),
                    l.spool.dropped.to_string(),
                    l.cert_until.unwrap_or_else(|| "-".into()),
                    l.why.unwrap_or_default(),
                ]
            }
            Topic::NodeStatus {} => {
                head = &["NODE", "READY", "CPU", "MEMORY", "KERNEL", "ARCH"];
                let s: payload::NodeStatus = payload::read(payload)?;
                let at = |path: &str| {
                    Value::Object(s.status.clone())
                        .pointer(path)
                        .map_or("-".into(), |v| plain(Some(v)))
                };
                let ready = s
                    .status
                    .get("conditions")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten();
                let ready = ready
                    .filter(|c| c["type"] == "Ready")
                    .map(|c| plain(c.get("status")))
                    .next();
                vec![
                    s.node.clone(),
                    ready.unwrap_or_else(|| "-".into()),
                    at("/capacity/cpu"),
                    at("/capacity/memory"),
                    at("/nodeInfo/kernelVersion"),
                    at("/nodeInfo/architecture"),
                ]
            }
            Topic::Obj { kind: of, ns, name } => {
                let obj: Obj = payload::read(payload)?;
                let name = if kind == "all" || kind == "objects" {
                    format!("{of}/{name}")
                } else {
                    name.to_string()
                };
                vec![ns.to_string(), name, obj.rev.to_string(), obj.uid]
            }
            other => vec![other.to_string()],
        });
    }
    Ok(table::print(head, &rows))
}

/// Desired values that are reached, of all; what the API wanted and was refused counts as wanted.
fn synced(twin: &Twin) -> String {
    let wanted = |p: &&payload::TwinProp| p.desired.is_some() || !p.synced;
    let all = twin.props.values().filter(wanted);
    let reached = all.clone().filter(|p| p.synced).count();
    match all.count() {
        0 => "-".to_owned(),
        all => format!("{reached}/{all}"),
    }
}

fn plain(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(s)) => s.clone(),
        Some(other) => other.to_string(),
    }
}

/// `edgebus sub`.
pub async fn sub(args: &SubArgs) -> Result<()> {
    for filter in &args.filter {
        check_filter(filter)?;
    }
    let bus = connect(&args.visit).await?;
    let mut left = args.count.unwrap_or(u64::MAX);
    if args.retained_only {
        for (topic, payload) in bus.snapshot(args.filter.clone(), WAIT).await? {
            if left == 0 {
                break;
            }
            left -= 1;
            line(args, &topic, &payload)?;
        }
        bus.close().await;
        return Ok(());
    }
    let mut stream = bus.subscribe(args.filter.clone()).await?;
    stream.granted().await?;
    while left > 0 {
        tokio::select! {
            message = stream.next() => match message {
                Some(message) => {
                    let message = message?;
                    line(args, &message.topic, &message.payload)?;
                    left -= 1;
                }
                None => break,
            },
            signal = tokio::signal::ctrl_c() => { signal?; break }
        }
    }
    bus.close().await;
    Ok(())
}

/// A shared subscription's filter comes after its group: `$share/GROUP/FILTER`.
fn check_filter(filter: &str) -> Result<()> {
    let own = filter
        .strip_prefix("$share/")
        .and_then(|rest| rest.split_once('/'))
        .map_or(filter, |(_, own)| own);
    edgebus_bus::filter::check_filter(own).map_err(|e| {
        let why = format!(
            "{filter:?} cannot be subscribed to: {e} (as in edge/v1/twin/# or app/+/state)"
        );
        BadConfig(why).into()
    })
}

fn line(args: &SubArgs, topic: &str, payload: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if !args.quiet {
        write!(out, "{topic} ")?;
    }
    match serde_json::from_slice::<Value>(payload) {
        Ok(value) if args.pretty => writeln!(out, "{value:#}")?,
        _ => {
            out.write_all(payload)?;
            writeln!(out)?;
        }
    }
    Ok(out.flush()?)
}

/// `edgebus pub`.
pub async fn publish(args: &PubArgs) -> Result<()> {
    let payload = match (&args.payload, &args.file) {
        (Some(text), None) => text.clone().into_bytes(),
        (None, Some(path)) if path.as_os_str() == "-" => {
            let mut all = Vec::new();
            let limit = edgebus_bus::limits::PAYLOAD_BYTES as u64 + 1;
            std::io::stdin().take(limit).read_to_end(&mut all)?;
            all
        }
        (None, Some(path)) => {
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?
        }
        (None, None) => Vec::new(),
        (Some(_), Some(_)) => bail!(BadConfig("say the payload or --file, not both".into())),
    };
    edgebus_bus::filter::check_name(&args.topic)
        .map_err(|e| BadConfig(format!("{:?} cannot be published to: {e}", args.topic)))?;
    let mut message = Message::new(args.topic.clone(), payload)?;
    message.retain |= args.retain;
    let bus = connect(&args.visit).await?;
    let said = bus.publish(message).await;
    bus.close().await;
    Ok(said?)
}

/// `edgebus explain`.
pub fn explained(asked: Option<&str>) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let Some(asked) = asked else {
        return Ok(out.write_all(explain::reference().as_bytes())?);
    };
    let rows = explain::explain(asked);
    if rows.is_empty() {
        bail!(BadConfig(format!(
            "nothing in the topic table fits {asked:?}; it explains topics (edge/v1/twin/default/pump/set), \
             filters (edge/v1/dev/#) and words in topics (desired, report, call). `edgebus explain` alone \
             prints the whole table; `edgebus get devices {asked}` shows what a device {asked:?} is now"
        )));
    }
    writeln!(out, "{}", rows.join("\n\n"))?;
    if let Some(example) = explain::example_of(asked) {
        writeln!(out, "  for example")?;
        for line in example.lines() {
            writeln!(out, "    {line}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use edgebus_bus::payload::Twin;
    use serde_json::json;

    #[test]
    fn synced_counts_what_is_wanted_and_not_what_only_reports() {
        let mut twin: Twin =
            serde_json::from_value(json!({"gen": {"store": "s", "n": 1}, "props": {
            "pressure": {"reported": 1, "synced": true}}}))
            .unwrap();
        assert_eq!(super::synced(&twin), "-");
        let more = json!({
            "speed": {"desired": 5, "reported": 5, "synced": true},
            "level": {"desired": 5, "reported": 4, "synced": false},
            "refused": {"reported": 4, "synced": false}});
        let more: std::collections::BTreeMap<_, _> = serde_json::from_value(more).unwrap();
        twin.props.extend(more);
        assert_eq!(super::synced(&twin), "1/3");
    }

    #[test]
    fn a_filter_that_is_none_is_not_called_a_topic() {
        for good in ["a/#", "#", "a/+/c", "$share/g/a/#", "$hw/events/#"] {
            assert!(super::check_filter(good).is_ok(), "{good}");
        }
        let said = super::check_filter("a/#/b").unwrap_err().to_string();
        assert!(
            said.starts_with("\"a/#/b\" cannot be subscribed to: '#' must be the whole last level"),
            "{said}"
        );
    }

    #[test]
    fn kinds_are_taken_in_kubectls_spellings() {
        for (said, is) in [
            ("pods", "pod"),
            ("configmaps", "configmap"),
            ("cm", "configmap"),
            ("devicestatuses", "devicestatus"),
            ("device", "device"),
        ] {
            assert_eq!(super::singular(said), is);
        }
    }
}
