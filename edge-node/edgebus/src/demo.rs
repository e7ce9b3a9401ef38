//! `edgebus demo`: the whole product on this machine, on free ports, in a folder of its own. It
//! starts the real processes, applies a device, changes its desired value and watches the register
//! follow; then says what to try. Ctrl-C ends all it started and removes the folder, unless
//! `--dir` named it.

mod parts;
mod pump;

use crate::cli::DemoArgs;
use crate::signals::stop_on_signal;
use anyhow::{Context, Result, bail};
use edgebus_bridge::operator::Operator;
use edgebus_bus::payload::{self, Twin};
use edgebus_bus::{Name, Topic};
use edgebus_client::{Address, Bus, Change, ConnectOptions};
use parts::Parts;
use pump::Pump;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const NODE: &str = "gateway";
const WAIT: Duration = Duration::from_secs(60);

/// Prints progress with the time since the start.
struct Steps(Instant);

impl Steps {
    fn done(&self, what: &str, detail: impl std::fmt::Display) {
        println!(
            "  {:6.2} s  {what:<16} {detail}",
            self.0.elapsed().as_secs_f64()
        );
    }
}

/// Runs the demo until Ctrl-C.
pub async fn run(args: DemoArgs) -> Result<()> {
    let (dir, keep) = match &args.dir {
        Some(dir) => (dir.clone(), true),
        None => (
            std::env::temp_dir().join(format!("edgebus-demo-{}", std::process::id())),
            false,
        ),
    };
    private_dir(&dir)?;
    let dir = dir
        .canonicalize()
        .with_context(|| format!("the folder {}", dir.display()))?;
    println!(
        "edgebus demo: all of it runs on this machine, in {}. Ctrl-C ends it and {} that folder.\n",
        dir.display(),
        if keep { "keeps" } else { "removes" }
    );
    let stop = CancellationToken::new();
    tokio::spawn(stop_on_signal(stop.clone()));
    let mut parts = Parts::new(&dir)?;
    let outcome = tokio::select! {
        outcome = show(&args, &dir, &mut parts, &stop) => outcome,
        () = stop.cancelled() => Ok(()),
    };
    if outcome.is_err() {
        parts.show_logs();
    }
    println!("\nstopping");
    parts.stop().await;
    if !keep && outcome.is_ok() {
        std::fs::remove_dir_all(&dir).with_context(|| format!("removing {}", dir.display()))?;
    }
    outcome
}

fn private_dir(dir: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("making {}", dir.display()))
}

async fn show(
    args: &DemoArgs,
    dir: &Path,
    parts: &mut Parts,
    stop: &CancellationToken,
) -> Result<()> {
    let steps = Steps(Instant::now());
    let pump = Pump::start(stop.clone()).await?;

    // A port of its own from the start: a restart has to come back on the same one.
    let mut listen = args.listen;
    if listen.port() == 0 {
        listen.set_port(parts::free_port()?);
    }
    let kubeconfig = dir.join("kubeconfig");
    parts.start(
        "standalone",
        &[
            "standalone",
            "--listen",
            &listen.to_string(),
            "--data-dir",
            &text(&dir.join("api")),
            "--kubeconfig",
            &text(&kubeconfig),
        ],
    )?;
    let operator = parts
        .until("standalone", WAIT, || async {
            Operator::connect(&kubeconfig).await
        })
        .await?;
    steps.done("control plane", operator.url());

    let port = parts::free_port()?;
    let bridge = format!("127.0.0.1:{port}");
    parts.start(
        "cloud-bridge",
        &[
            "cloud-bridge",
            "--listen",
            &bridge,
            "--kubeconfig",
            &text(&kubeconfig),
        ],
    )?;
    parts
        .until("cloud-bridge", WAIT, || async {
            Ok(tokio::net::TcpStream::connect(&bridge).await.map(drop)?)
        })
        .await?;
    steps.done("cloud-bridge", &bridge);

    let token = edgebus_bridge::token_create(
        Some(kubeconfig.clone()),
        edgebus_bridge::TokenSpec {
            node: Some(NODE.parse()?),
            ..Default::default()
        },
    )
    .await?;
    let data = dir.join("node");
    // A folder that was used before holds the keys of a bridge that listened elsewhere.
    edgebus_link::reset(&data.join("link"))?;
    let token = token
        .parse()
        .map_err(|e| anyhow::anyhow!("the new token: {e}"))?;
    let mut spec = edgebus_link::JoinSpec::new(bridge, token, data.join("link"));
    spec.node = Some(NODE.parse()?);
    edgebus_link::join(spec).await?;
    steps.done("enrolled", format!("{NODE}, with a token that works once"));

    let mappers = dir.join("mappers.d");
    private_dir(&mappers)?;
    for mapper in ["modbus", "virtual"] {
        let place = mappers.join(mapper);
        if !place.exists() {
            std::os::unix::fs::symlink(std::env::current_exe()?, &place)
                .with_context(|| format!("linking {}", place.display()))?;
        }
    }
    let run = dir.join("run");
    parts.start(
        "node",
        &[
            "node",
            "--node",
            NODE,
            "--mqtt",
            &args.mqtt.to_string(),
            "--data-dir",
            &text(&data),
            "--run-dir",
            &text(&run),
            "--mappers-dir",
            &text(&mappers),
        ],
    )?;
    parts
        .until("node", WAIT, || async {
            let node = operator.get("v1", "Node", None, NODE).await?;
            let conditions = node["status"]["conditions"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            match conditions
                .iter()
                .any(|c| c["type"] == "Ready" && c["status"] == "True")
            {
                true => Ok(()),
                false => bail!("node {NODE} is not Ready yet"),
            }
        })
        .await?;
    steps.done(
        "node Ready",
        format!("{NODE}: broker, link, edged, devicetwin, mappers modbus and virtual"),
    );

    for object in device(pump.port) {
        operator.apply(&object).await?;
    }
    let status = parts
        .until("node", WAIT, || async {
            reported(&operator, "pressure").await
        })
        .await?;
    steps.done(
        "device online",
        format!(
            "pump, Modbus TCP at 127.0.0.1:{}: pressure {status} bar",
            pump.port
        ),
    );

    // In a folder that was used before, 1500 may be what is desired already.
    let before = reported(&operator, "speed").await.unwrap_or_default();
    let speed = if before == "1500" { "1200" } else { "1500" };
    let (to_register, to_status) = desire(&operator, &pump, parts, speed).await?;
    steps.done(
        "desired → device",
        format!(
            "speed {speed} is in the register after {:.1} ms",
            to_register.as_secs_f64() * 1e3
        ),
    );
    steps.done(
        "device → status",
        format!(
            "and in the DeviceStatus after {:.1} ms",
            to_status.as_secs_f64() * 1e3
        ),
    );

    next_steps(dir, &kubeconfig, &run)?;
    if args.once {
        return Ok(());
    }
    println!("Live, from the bus (edge/v1/twin/default/pump):");
    tokio::select! {
        seen = watch(&run) => seen,
        ended = keep(parts) => ended,
    }
}

/// Keeps the parts alive.
async fn keep(parts: &mut Parts) -> Result<()> {
    let mut tick = tokio::time::interval(Duration::from_millis(500));
    loop {
        tick.tick().await;
        parts.revive()?;
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// The demo's device: KubeEdge's v1beta1 kinds.
fn device(port: u16) -> [Value; 2] {
    let api = "devices.kubeedge.io/v1beta1";
    let visitors = |register: &str, offset: u16, more: Value| {
        let mut config = json!({"register": register, "offset": offset, "limit": 1});
        if let (Some(config), Some(more)) = (config.as_object_mut(), more.as_object()) {
            config.extend(more.clone());
        }
        json!({"protocolName": "modbus", "configData": config})
    };
    [
        json!({"apiVersion": api, "kind": "DeviceModel", "metadata": {"name": "pump", "namespace": "default"}, "spec": {
            "protocol": "modbus", "properties": [
                {"name": "speed", "type": "INT", "accessMode": "ReadWrite", "minimum": "0", "maximum": "3000", "unit": "rpm"},
                {"name": "pressure", "type": "FLOAT", "accessMode": "ReadOnly", "unit": "bar"}]}}),
        json!({"apiVersion": api, "kind": "Device", "metadata": {"name": "pump", "namespace": "default"}, "spec": {
            "deviceModelRef": {"name": "pump"}, "nodeName": NODE,
            "protocol": {"protocolName": "modbus", "configData": {"communicateMode": "TCP", "ip": "127.0.0.1", "port": port, "slaveID": 1}},
            "properties": [
                {"name": "speed", "collectCycle": 200, "reportToCloud": true, "desired": {"value": "900"}, "visitors": visitors("HoldingRegister", 0, json!({}))},
                {"name": "pressure", "collectCycle": 500, "reportToCloud": true, "visitors": visitors("InputRegister", 1, json!({"scale": 0.01}))}]}}),
    ]
}

async fn reported(operator: &Operator, property: &str) -> Result<String> {
    let status = operator
        .get(
            "devices.kubeedge.io/v1beta1",
            "DeviceStatus",
            Some("default"),
            "pump",
        )
        .await?;
    let twins = status["status"]["twins"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let value = twins
        .iter()
        .find(|t| t["propertyName"] == property)
        .and_then(|t| t["reported"]["value"].as_str());
    value
        .map(str::to_owned)
        .with_context(|| format!("{property} has not been reported yet"))
}

/// Changes the desired speed as `kubectl patch` would, and measures both ways.
async fn desire(
    operator: &Operator,
    pump: &Pump,
    parts: &mut Parts,
    speed: &str,
) -> Result<(Duration, Duration)> {
    let wanted: u16 = speed.parse()?;
    let begin = Instant::now();
    operator
        .patch("devices.kubeedge.io/v1beta1", "Device", "default", "pump", &json!([{"op": "add", "path": "/spec/properties/0/desired", "value": {"value": speed}}]))
        .await?;
    tokio::time::timeout(WAIT, pump.reaches(wanted))
        .await
        .context("the register did not change")?;
    let to_register = begin.elapsed();
    parts
        .until("node", WAIT, || async {
            match reported(operator, "speed").await? == speed {
                true => Ok(()),
                false => bail!("speed is not reported yet"),
            }
        })
        .await?;
    Ok((to_register, begin.elapsed()))
}

fn next_steps(dir: &Path, kubeconfig: &Path, run: &Path) -> Result<()> {
    let viewer = run.join("clients/viewer");
    let exe = std::env::current_exe()?;
    println!(
        "\nTry next, in another terminal:\n\n  \
         export KUBECONFIG={kubeconfig} EDGEBUS_RUN_DIR={run}\n  \
         kubectl get nodes,devices,devicestatuses\n  \
         kubectl patch device pump --type=json -p '[{{\"op\":\"add\",\"path\":\"/spec/properties/0/desired\",\"value\":{{\"value\":\"2000\"}}}}]'\n  \
         kubectl describe devicestatus pump\n  \
         XDG_CONFIG_HOME={viewer} mosquitto_sub -v -t 'edge/v1/#'\n  \
         XDG_CONFIG_HOME={app} mosquitto_pub -t 'edge/v1/twin/default/pump/set' -m '{{\"id\":\"1\",\"props\":{{\"speed\":1200}}}}'\n  \
         {exe} get devices\n  \
         {exe} explain edge/v1/twin/default/pump\n\n\
         Logs: {dir}/*.log\n",
        kubeconfig = kubeconfig.display(),
        run = run.display(),
        viewer = viewer.display(),
        app = run.join("clients/app").display(),
        exe = exe.display(),
        dir = dir.display(),
    );
    Ok(())
}

/// Prints the twin whenever it changes.
async fn watch(run: &Path) -> Result<()> {
    let socket: PathBuf = run.join("admin/admin.sock");
    let bus = Bus::connect(
        ConnectOptions::visitor(Address::Unix(socket), Name::new("operator")?),
        CancellationToken::new(),
    );
    let topic = Topic::Twin {
        ns: Name::new("default")?,
        name: Name::new("pump")?,
    };
    let mut twins = bus.collection([topic.to_string()]).await?.mirror();
    while let Some(change) = twins.next().await {
        if let Change::Set { payload, .. } = change? {
            let twin: Twin = payload::read(&payload)?;
            let shown = |p: &str, which: fn(&payload::TwinProp) -> Option<&Value>| {
                twin.props
                    .get(p)
                    .and_then(which)
                    .map_or("-".to_owned(), Value::to_string)
            };
            println!(
                "  speed desired {} reported {}   pressure {} bar   {:?}",
                shown("speed", |p| p.desired.as_ref()),
                shown("speed", |p| p.reported.as_ref()),
                shown("pressure", |p| p.reported.as_ref()),
                twin.state
            );
        }
    }
    Ok(())
}
