//! The cloud side: `edgebus standalone`, `edgebus cloud-bridge`, and kubectl against them.

use crate::run::{Proc, edgebus, eventually, output, tool};
use serde_json::Value;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|l| l.local_addr())
        .expect("loopback has a free port")
        .port()
}

/// A control plane of one test.
pub struct Cloud {
    /// Its folder.
    pub dir: PathBuf,
    /// The Kubernetes API.
    pub standalone: Proc,
    /// cloud-bridge, unless it was cut off.
    pub bridge: Option<Proc>,
    /// Port of the API.
    pub api_port: u16,
    /// Port where nodes dial in.
    pub bridge_port: u16,
    node_grace_s: u64,
}

impl Cloud {
    /// Starts both and waits until they answer.
    pub fn start(dir: &Path) -> Self {
        Self::start_with(dir, 40)
    }

    /// The same, with another time after which a silent node is NotReady.
    pub fn start_with(dir: &Path, node_grace_s: u64) -> Self {
        let dir = dir.join("cloud");
        std::fs::create_dir_all(&dir).expect("a folder for the cloud");
        let (api_port, bridge_port) = (free_port(), free_port());
        let standalone = standalone(&dir, api_port, node_grace_s);
        let mut cloud = Self {
            dir,
            standalone,
            bridge: None,
            api_port,
            bridge_port,
            node_grace_s,
        };
        cloud.wait_api();
        cloud.connect();
        cloud
    }

    fn wait_api(&self) {
        eventually("the API answers", || {
            match self.kubectl_code(&["get", "--raw", "/readyz"]) {
                (0, ..) => Ok(()),
                (_, _, err) => Err(err),
            }
        });
    }

    /// Starts cloud-bridge again.
    pub fn connect(&mut self) {
        let mut command = Command::new(edgebus());
        command
            .arg("cloud-bridge")
            .arg("--kubeconfig")
            .arg(self.kubeconfig());
        command.args(["--listen", &format!("127.0.0.1:{}", self.bridge_port)]);
        self.bridge = Some(Proc::start("cloud-bridge", &self.dir, command));
        eventually("cloud-bridge listens", || {
            std::net::TcpStream::connect(("127.0.0.1", self.bridge_port))
                .map(drop)
                .map_err(|e| e.to_string())
        });
    }

    /// Ends cloud-bridge: every link is cut and no node gets through.
    pub fn cut(&mut self) {
        self.bridge = None;
    }

    /// `kill -9` and start of the API server.
    pub fn restart_api(&mut self) {
        self.standalone.kill();
        self.standalone = standalone(&self.dir, self.api_port, self.node_grace_s);
        self.wait_api();
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// A bootstrap token, in a file.
    pub fn token(&self, node: Option<&str>) -> PathBuf {
        let mut command = Command::new(edgebus());
        command
            .args(["token", "create", "--kubeconfig"])
            .arg(self.kubeconfig());
        if let Some(node) = node {
            command.args(["--node", node]);
        }
        let (code, token, err) = output(command, Duration::from_secs(30));
        assert_eq!(code, 0, "token create: {err}");
        let file = self.dir.join(format!("token-{}", node.unwrap_or("any")));
        std::fs::write(&file, token).expect("a file for the token");
        file
    }

    /// kubectl: exit code, standard output, standard error.
    pub fn kubectl_code(&self, args: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(tool("kubectl"));
        command
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .arg("--cache-dir")
            .arg(self.dir.join("kubectl"));
        command.args(args);
        output(command, Duration::from_secs(90))
    }

    /// kubectl, which must succeed.
    #[track_caller]
    pub fn kubectl(&self, args: &[&str]) -> String {
        let (code, out, err) = self.kubectl_code(args);
        assert_eq!(code, 0, "kubectl {args:?}: {out}{err}");
        out
    }

    /// `kubectl apply -f -`: exit code and both outputs.
    pub fn apply_code(&self, yaml: &str) -> (i32, String) {
        let mut command = Command::new(tool("kubectl"));
        command
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .arg("--cache-dir")
            .arg(self.dir.join("kubectl"));
        let mut child = command
            .args(["apply", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl starts");
        let mut stdin = child.stdin.take().expect("a piped standard input");
        stdin
            .write_all(yaml.as_bytes())
            .expect("kubectl reads its input");
        drop(stdin);
        let out = child.wait_with_output().expect("kubectl ends");
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        (
            out.status.code().unwrap_or(-1),
            text(&out.stdout) + &text(&out.stderr),
        )
    }

    /// `kubectl apply -f -`, which must succeed.
    #[track_caller]
    pub fn apply(&self, yaml: &str) {
        let (code, said) = self.apply_code(yaml);
        assert_eq!(code, 0, "kubectl apply: {said}");
    }

    /// One object as JSON; an error if there is none.
    pub fn get(&self, kind: &str, name: &str) -> Result<Value, String> {
        match self.kubectl_code(&["get", kind, name, "-o", "json"]) {
            (0, out, _) => serde_json::from_str(&out).map_err(|e| e.to_string()),
            (_, _, err) => Err(err),
        }
    }

    /// The desired value of a device's property.
    pub fn desire(&self, device: &str, property: &str, value: &str) {
        let patch = serde_json::json!({"spec": {"properties": [{"name": property, "desired": {"value": value}}]}});
        // Lists in custom resources are replaced whole by a merge patch: change the one entry.
        let device_now = self.get("device", device).expect("the device is there");
        let list = device_now["spec"]["properties"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        match list.iter().position(|p| p["name"] == property) {
            Some(i) => {
                let op = serde_json::json!([{"op": "add", "path": format!("/spec/properties/{i}/desired"), "value": {"value": value}}]);
                self.kubectl(&[
                    "patch",
                    "device",
                    device,
                    "--type=json",
                    "-p",
                    &op.to_string(),
                ]);
            }
            None => {
                self.kubectl(&[
                    "patch",
                    "device",
                    device,
                    "--type=merge",
                    "-p",
                    &patch.to_string(),
                ]);
            }
        }
    }

    /// The reported value of a device's property in its DeviceStatus.
    pub fn reported(&self, device: &str, property: &str) -> Result<String, String> {
        let status = self.get("devicestatus", device)?;
        let twins = status["status"]["twins"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let twin = twins
            .iter()
            .find(|t| t["propertyName"] == property)
            .ok_or_else(|| format!("no twin {property}: {status}"))?;
        twin["reported"]["value"]
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| format!("nothing reported: {twin}"))
    }
}

fn standalone(dir: &Path, port: u16, node_grace_s: u64) -> Proc {
    let mut command = Command::new(edgebus());
    command
        .arg("standalone")
        .arg("--data-dir")
        .arg(dir.join("api"));
    command.args([
        "--listen",
        &format!("127.0.0.1:{port}"),
        "--node-grace-s",
        &node_grace_s.to_string(),
    ]);
    command.arg("--kubeconfig").arg(dir.join("kubeconfig"));
    Proc::start("standalone", dir, command)
}
