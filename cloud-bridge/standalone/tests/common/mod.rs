//! A server on port 0 in a temporary folder, and a plain client for it.
// Not every test file uses everything here, and a helper fails by panicking as a test does.
#![allow(dead_code, clippy::unwrap_used)]

use base64::Engine;
use bytes::Bytes;
use edgebus_standalone::{Config, Server};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `check` gives something.
pub async fn eventually<T, F: AsyncFnMut() -> Option<T>>(what: &str, mut check: F) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < until, "did not happen: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub struct Running {
    pub client: Client,
    pub stop: CancellationToken,
    pub task: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Running {
    pub async fn start(config: Config) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stop = CancellationToken::new();
        let server = Server::open(config, listener, stop.clone()).await.unwrap();
        let client = Client::from_kubeconfig(server.kubeconfig());
        Running {
            client,
            stop,
            task: tokio::spawn(server.run()),
        }
    }

    pub async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .expect("the server stops")
            .unwrap()
            .unwrap();
    }
}

/// A server in a folder of its own.
pub async fn server() -> (tempfile::TempDir, Running) {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(Config::new(dir.path())).await;
    (dir, running)
}

#[derive(Clone)]
pub struct Client {
    address: String,
    tls: Arc<rustls::ClientConfig>,
    pub token: Option<String>,
}

pub struct Reply {
    pub status: StatusCode,
    pub headers: http::HeaderMap,
    pub bytes: Bytes,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|_| panic!("not JSON: {:?}", self.bytes))
    }

    /// The object, if all went well.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert!(self.status.is_success(), "{} {:?}", self.status, self.bytes);
        self.json()
    }

    /// The message of a refusal with this code and reason.
    #[track_caller]
    pub fn refused(&self, code: u16, reason: &str) -> String {
        let status = self.json();
        assert_eq!(
            (self.status.as_u16(), status["reason"].as_str()),
            (code, Some(reason)),
            "{status}"
        );
        status["message"].as_str().unwrap().to_owned()
    }
}

fn field<'a>(kubeconfig: &'a str, name: &str) -> &'a str {
    kubeconfig
        .lines()
        .find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(": "))
        .unwrap_or_else(|| panic!("{name} in the kubeconfig"))
}

impl Client {
    pub fn from_kubeconfig(path: &Path) -> Client {
        Client::new(&std::fs::read_to_string(path).unwrap(), true)
    }

    pub fn new(text: &str, certificate: bool) -> Client {
        let pem = |name: &str| {
            base64::engine::general_purpose::STANDARD
                .decode(field(text, name))
                .unwrap()
        };
        let mut roots = rustls::RootCertStore::empty();
        for der in CertificateDer::pem_slice_iter(&pem("certificate-authority-data")) {
            roots.add(der.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let tls = if certificate {
            let chain = CertificateDer::pem_slice_iter(&pem("client-certificate-data"))
                .map(Result::unwrap)
                .collect();
            let key = PrivateKeyDer::from_pem_slice(&pem("client-key-data")).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        } else {
            builder.with_no_client_auth()
        };
        Client {
            address: field(text, "server").trim_start_matches("https://").into(),
            tls: Arc::new(tls),
            token: None,
        }
    }

    /// The same server, asked by nobody in particular or with a token.
    pub fn without_certificate(kubeconfig: &Path, token: Option<String>) -> Client {
        let text = std::fs::read_to_string(kubeconfig).unwrap();
        Client {
            token,
            ..Client::new(&text, false)
        }
    }

    async fn open(
        &self,
        request: Request<Full<Bytes>>,
    ) -> anyhow::Result<http::Response<Incoming>> {
        let stream = TcpStream::connect(&self.address).await?;
        let name = ServerName::try_from("127.0.0.1")?;
        let stream = TlsConnector::from(self.tls.clone())
            .connect(name, stream)
            .await?;
        let (mut send, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(tokio::time::timeout(PATIENCE, send.send_request(request)).await??)
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        media: &str,
        body: impl Into<Bytes>,
    ) -> Request<Full<Bytes>> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.address)
            .header("user-agent", "test/1");
        if !media.is_empty() {
            request = request.header("content-type", media);
        }
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        request.body(Full::new(body.into())).unwrap()
    }

    pub async fn try_send(
        &self,
        method: Method,
        path: &str,
        media: &str,
        accept: &str,
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Reply> {
        let mut request = self.request(method, path, media, body);
        if !accept.is_empty() {
            request.headers_mut().insert("accept", accept.parse()?);
        }
        let answer = self.open(request).await?;
        let (parts, body) = answer.into_parts();
        Ok(Reply {
            status: parts.status,
            headers: parts.headers,
            bytes: body.collect().await?.to_bytes(),
        })
    }

    pub async fn send(
        &self,
        method: Method,
        path: &str,
        media: &str,
        body: impl Into<Bytes>,
    ) -> Reply {
        self.try_send(method, path, media, "", body).await.unwrap()
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, "", "").await
    }

    pub async fn get_as(&self, path: &str, accept: &str) -> Reply {
        self.try_send(Method::GET, path, "", accept, "")
            .await
            .unwrap()
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send(Method::POST, path, "application/json", body.to_string())
            .await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Reply {
        self.send(Method::PUT, path, "application/json", body.to_string())
            .await
    }

    /// A patch of kind `json`, `merge`, `strategic-merge` or `apply`.
    pub async fn patch(&self, path: &str, kind: &str, body: &Value) -> Reply {
        let media = match kind {
            "apply" => "application/apply-patch+yaml".to_owned(),
            kind => format!("application/{kind}-patch+json"),
        };
        self.send(Method::PATCH, path, &media, body.to_string())
            .await
    }

    pub async fn delete(&self, path: &str, options: Value) -> Reply {
        let body = match options {
            Value::Null => String::new(),
            options => options.to_string(),
        };
        self.send(Method::DELETE, path, "application/json", body)
            .await
    }

    pub async fn watch(&self, path: &str, accept: &str) -> Watching {
        let mut request = self.request(Method::GET, path, "", "");
        if !accept.is_empty() {
            request
                .headers_mut()
                .insert("accept", accept.parse().unwrap());
        }
        let answer = self.open(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        Watching {
            body: answer.into_body(),
            buffer: Vec::new(),
        }
    }
}

pub struct Watching {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Watching {
    /// The next event, or `None` when the stream ended.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame())
                .await
                .expect("an event in time")?;
            self.buffer
                .extend_from_slice(&frame.ok()?.into_data().ok()?);
        }
    }

    /// Type and name of the next event.
    pub async fn named(&mut self) -> (String, String) {
        let event = self.next().await.expect("an event");
        let text = |v: &Value| v.as_str().unwrap_or("").to_owned();
        (
            text(&event["type"]),
            text(&event["object"]["metadata"]["name"]),
        )
    }
}

pub const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub const PODS: &str = "/api/v1/namespaces/default/pods";
pub const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
pub const THINGS: &str = "/apis/e.io/v1/namespaces/default/things";

pub fn config_map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"x": value}})
}

/// A definition of `things.e.io` with a default, a limit, a status and columns.
pub fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.e.io"},
        "spec": {
            "group": "e.io", "scope": "Namespaced",
            "names": {"plural": "things", "kind": "Thing", "shortNames": ["th"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}},
                "selectableFields": [{"jsonPath": ".spec.node"}],
                "additionalPrinterColumns": [
                    {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
                    {"name": "On", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"On\")].status"},
                ],
                "schema": {"openAPIV3Schema": {"type": "object", "required": ["spec"], "properties": {
                    "spec": {"type": "object", "properties": {
                        "size": {"type": "integer", "default": 1, "maximum": 9},
                        "node": {"type": "string"},
                    }},
                    "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                }}},
            }],
        },
    })
}

pub fn thing(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "e.io/v1", "kind": "Thing", "metadata": {"name": name}, "spec": spec})
}
