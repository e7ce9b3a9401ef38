//! What stands around the node: a Modbus device by pymodbus, and Debian's mosquitto clients.

use crate::node::Node;
use crate::run::{here, output, tool};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

/// A Modbus device.
pub struct Modbus {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    /// Its TCP port; 0 on a serial line.
    pub port: u16,
}

impl Modbus {
    /// A TCP device on a free port.
    pub fn tcp() -> Self {
        Self::tcp_on(0)
    }

    /// A TCP device on this port.
    pub fn tcp_on(port: u16) -> Self {
        Self::start(&["tcp", &port.to_string()])
    }

    /// A device on a serial port.
    pub fn serial(path: &str, baud: u32) -> Self {
        Self::start(&["serial", path, &baud.to_string()])
    }

    fn start(args: &[&str]) -> Self {
        let mut child = Command::new(tool("python3"))
            .arg(here("field/modbus_server.py"))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 starts");
        let stdin = child.stdin.take().expect("piped");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut device = Self {
            child,
            stdin,
            stdout,
            port: 0,
        };
        let hello = device.line();
        device.port = hello["port"]
            .as_u64()
            .and_then(|p| u16::try_from(p).ok())
            .unwrap_or(0);
        device
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.stdout
            .read_line(&mut line)
            .expect("the device answers");
        serde_json::from_str(&line)
            .unwrap_or_else(|e| panic!("the Modbus device said {line:?}: {e}"))
    }

    fn ask(&mut self, command: &str) -> Value {
        writeln!(self.stdin, "{command}").expect("the device listens");
        self.line()
    }

    /// A register.
    pub fn get(&mut self, address: u16) -> u16 {
        self.ask(&format!("get {address}"))
            .as_u64()
            .and_then(|v| u16::try_from(v).ok())
            .expect("a register")
    }

    /// Changes a register at the device itself.
    pub fn set(&mut self, address: u16, value: u16) {
        self.ask(&format!("set {address} {value}"));
    }

    /// Every write that came over the line: address and value.
    pub fn writes(&mut self) -> Vec<(u16, u16)> {
        serde_json::from_value(self.ask("writes")).expect("a list of writes")
    }

    /// How many questions came.
    pub fn reads(&mut self) -> u64 {
        self.ask("reads").as_u64().expect("a count")
    }

    /// Answer exceptions only.
    pub fn mute(&mut self, on: bool) {
        self.ask(if on { "mute on" } else { "mute off" });
    }
}

impl Drop for Modbus {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The folder of ready-made mosquitto settings of a role on this node.
pub fn settings(node: &Node, role: &str) -> PathBuf {
    node.run_dir().join("clients").join(role)
}

/// `mosquitto_pub` as a role of this node: exit code and what it said.
pub fn mosquitto_pub(node: &Node, role: &str, args: &[&str]) -> (i32, String) {
    let mut command = Command::new("mosquitto_pub");
    command
        .args(args)
        .env("XDG_CONFIG_HOME", settings(node, role));
    let (code, out, err) = output(command, Duration::from_secs(20));
    (code, out + &err)
}

/// A running `mosquitto_sub -v`.
pub struct Sub {
    child: Child,
    lines: Receiver<String>,
}

impl Sub {
    /// Subscribes as a role of this node and waits until the broker granted it.
    pub fn start(node: &Node, role: &str, filter: &str) -> Self {
        // Line by line: in a pipe it would keep its lines until a block is full.
        let mut child = Command::new("stdbuf")
            .args(["-oL", "mosquitto_sub", "-v", "-d", "-q", "1", "-t", filter])
            .env("XDG_CONFIG_HOME", settings(node, role))
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("mosquitto_sub starts");
        let stdout = child.stdout.take().expect("piped");
        let (tx, lines) = sync_channel(10_000);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if tx.send(line).is_err() {
                    return;
                }
            }
        });
        let sub = Self { child, lines };
        sub.until("SUBACK", |line| line.contains("received SUBACK"));
        sub
    }

    fn until(&self, what: &str, is: impl Fn(&str) -> bool) -> String {
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(Duration::from_secs(20)) {
                Ok(line) if is(&line) => return line,
                Ok(line) => seen.push(line),
                Err(RecvTimeoutError::Timeout) => {
                    panic!("mosquitto_sub did not see {what}; it saw {seen:#?}")
                }
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("mosquitto_sub ended before {what}; it saw {seen:#?}")
                }
            }
        }
    }

    /// The next message that fits: topic and payload.
    pub fn expect(&self, what: &str, is: impl Fn(&str, &str) -> bool) -> (String, String) {
        let split = |line: &str| {
            line.split_once(' ')
                .map(|(t, p)| (t.to_owned(), p.to_owned()))
        };
        let line = self.until(what, |line| {
            !line.starts_with("Client ") && split(line).is_some_and(|(t, p)| is(&t, &p))
        });
        split(&line).unwrap_or_default()
    }

    /// Messages that are here already.
    pub fn seen(&self) -> Vec<String> {
        self.lines
            .try_iter()
            .filter(|l| !l.starts_with("Client "))
            .collect()
    }
}

impl Drop for Sub {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
