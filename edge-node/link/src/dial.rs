//! From a `host:port` to a WebSocket with both sides checked.

use std::sync::Arc;
use std::time::Duration;

use edgebus_linkproto::{EnrolError, LINK_PATH, SUBPROTOCOL, limits};
use rustls::{CertificateError, ClientConfig};
use rustls_pki_types::ServerName;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite;
use tungstenite::client::IntoClientRequest as _;
use tungstenite::http::HeaderValue;
use tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;
use tungstenite::protocol::WebSocketConfig;

pub type Socket = Box<WebSocketStream<TlsStream<TcpStream>>>;

#[derive(Debug, Error)]
pub enum DialError {
    #[error("server {0:?}: wanted host, host:port or https://host:port")]
    Address(String),
    #[error("{server} cannot be reached")]
    Connect {
        server: String,
        #[source]
        source: std::io::Error,
    },
    #[error("TLS with {server} failed")]
    Tls {
        server: String,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "the cloud at {server} is not the one this node joined: its certificate is from another CA. Nothing \
         was taken or deleted; `edgebus join --accept-cluster` joins it anew"
    )]
    OtherCa { server: String },
    #[error("{server} refused the link")]
    WebSocket {
        server: String,
        #[source]
        source: Box<tungstenite::Error>,
    },
    #[error("{server} refused the link ({status}): {why}")]
    Refused {
        server: String,
        status: u16,
        why: String,
    },
    #[error("{server} does not speak {SUBPROTOCOL}")]
    Subprotocol { server: String },
    #[error("{server} did not answer within {waited:?}")]
    Timeout { server: String, waited: Duration },
}

impl DialError {
    /// The other end knows us and says no: it will say the same in a second.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            DialError::OtherCa { .. }
                | DialError::Refused {
                    status: 401 | 403,
                    ..
                }
        )
    }
}

/// Host and port of cloud-bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// What the certificate must be for; no brackets around an IPv6 address.
    pub host: String,
    pub port: u16,
}

impl Server {
    /// `host`, `host:port`, `[v6]:port`, each with or without `https://`. The default port is 443.
    pub fn parse(text: &str) -> Result<Server, DialError> {
        let bad = || DialError::Address(text.chars().take(200).collect());
        let rest = text.trim();
        let rest = rest
            .strip_prefix("https://")
            .unwrap_or(rest)
            .trim_end_matches('/');
        let (host, port) = if let Some(v6) = rest.strip_prefix('[') {
            let (host, port) = v6.split_once(']').ok_or_else(bad)?;
            (host, port.strip_prefix(':'))
        } else if rest.matches(':').count() > 1 {
            (rest, None)
        } else {
            match rest.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            }
        };
        let port = port.map_or(Ok(443), str::parse).map_err(|_| bad())?;
        ServerName::try_from(host.to_owned()).map_err(|_| bad())?;
        Ok(Server {
            host: host.to_owned(),
            port,
        })
    }

    pub fn name(&self) -> Result<ServerName<'static>, DialError> {
        ServerName::try_from(self.host.clone()).map_err(|_| DialError::Address(self.host.clone()))
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// TCP and TLS.
pub async fn tls(
    server: &Server,
    config: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, DialError> {
    let shown = server.to_string();
    let tcp = TcpStream::connect((server.host.as_str(), server.port))
        .await
        .map_err(|source| DialError::Connect {
            server: shown.clone(),
            source,
        })?;
    // Frames are small and somebody waits for each of them.
    tcp.set_nodelay(true).map_err(|source| DialError::Connect {
        server: shown.clone(),
        source,
    })?;
    TlsConnector::from(config)
        .connect(server.name()?, tcp)
        .await
        .map_err(|source| tls_failed(shown, source))
}

fn tls_failed(server: String, source: std::io::Error) -> DialError {
    let inner = source
        .get_ref()
        .and_then(|e| e.downcast_ref::<rustls::Error>());
    match inner {
        // A CA of the same name as ours shows by its signature only.
        Some(rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        )) => DialError::OtherCa { server },
        _ => DialError::Tls { server, source },
    }
}

/// The whole way, within `within`.
pub async fn link(
    server: &Server,
    config: Arc<ClientConfig>,
    within: Duration,
) -> Result<Socket, DialError> {
    match timeout(within, websocket(server, config)).await {
        Ok(result) => result,
        Err(_) => Err(DialError::Timeout {
            server: server.to_string(),
            waited: within,
        }),
    }
}

async fn websocket(server: &Server, config: Arc<ClientConfig>) -> Result<Socket, DialError> {
    let refused = |source: tungstenite::Error| match source {
        tungstenite::Error::Http(answer) => DialError::Refused {
            server: server.to_string(),
            status: answer.status().as_u16(),
            why: why(answer.body().as_deref().unwrap_or_default()),
        },
        source => DialError::WebSocket {
            server: server.to_string(),
            source: Box::new(source),
        },
    };
    let stream = tls(server, config).await?;
    let mut request = format!("wss://{server}{LINK_PATH}")
        .into_client_request()
        .map_err(refused)?;
    request.headers_mut().insert(
        SEC_WEBSOCKET_PROTOCOL,
        HeaderValue::from_static(SUBPROTOCOL),
    );
    let sizes = WebSocketConfig::default()
        .read_buffer_size(16 << 10)
        .write_buffer_size(0)
        .max_write_buffer_size(limits::MESSAGE_BYTES * 2)
        .max_message_size(Some(limits::MESSAGE_BYTES))
        .max_frame_size(Some(limits::MESSAGE_BYTES));
    let (socket, answer) =
        tokio_tungstenite::client_async_with_config(request, stream, Some(sizes))
            .await
            .map_err(refused)?;
    let spoken = answer.headers().get(SEC_WEBSOCKET_PROTOCOL);
    if spoken.is_none_or(|p| p.as_bytes() != SUBPROTOCOL.as_bytes()) {
        return Err(DialError::Subprotocol {
            server: server.to_string(),
        });
    }
    Ok(Box::new(socket))
}

/// The reason in an answer: the `why` of our JSON, or the text as it is.
fn why(body: &[u8]) -> String {
    match serde_json::from_slice::<EnrolError>(body) {
        Ok(refusal) => refusal.why,
        Err(_) => String::from_utf8_lossy(body).chars().take(200).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_written_in_the_usual_ways() {
        for (text, host, port) in [
            ("cloud.example", "cloud.example", 443),
            ("https://cloud.example/", "cloud.example", 443),
            ("cloud.example:8443", "cloud.example", 8443),
            ("127.0.0.1:1", "127.0.0.1", 1),
            ("[::1]:8443", "::1", 8443),
            ("::1", "::1", 443),
        ] {
            let server = Server::parse(text).unwrap();
            assert_eq!((server.host.as_str(), server.port), (host, port), "{text}");
            assert_eq!(Server::parse(&server.to_string()).unwrap(), server);
        }
        for text in ["", "host:port", "host:99999", "[::1", "a b", "é"] {
            assert!(Server::parse(text).is_err(), "{text}");
        }
    }
}
