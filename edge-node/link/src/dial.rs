//! From a `host:port` to a WebSocket with both sides checked.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use edgebus_linkproto::{EnrolError, LINK_PATH, SUBPROTOCOL, limits};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rustls::{CertificateError, ClientConfig};
use rustls_pki_types::ServerName;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::{Instant, interval, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite;
use tungstenite::client::IntoClientRequest as _;
use tungstenite::http::HeaderValue;
use tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;
use tungstenite::protocol::WebSocketConfig;

/// A connection request that is lost comes again from the kernel after 1, 3 and 7 s: too late for a network
/// that came back meanwhile. So others follow it at this distance,
const STAGGER: Duration = Duration::from_millis(300);
/// at most so many of them.
const STAGGERED: usize = 10;
/// Until here the kernel's repetitions of all of them close the gaps; longer than any network's round trip.
const CONNECT: Duration = Duration::from_millis(5500);

pub type Socket = Box<WebSocketStream<TlsStream<TcpStream>>>;

#[derive(Debug, Error)]
pub enum DialError {
    #[error("server {0:?}: wanted host, host:port or https://host:port")]
    Address(String),
    #[error("the name {host:?} has no address that this machine can find")]
    Lookup {
        host: String,
        #[source]
        source: io::Error,
    },
    #[error("{server} cannot be reached")]
    Connect {
        server: String,
        #[source]
        source: io::Error,
    },
    #[error("TLS with {server} failed")]
    Tls {
        server: String,
        #[source]
        source: io::Error,
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
    let failed = |source| DialError::Connect {
        server: shown.clone(),
        source,
    };
    let found = tokio::net::lookup_host((server.host.as_str(), server.port)).await;
    let addresses: Vec<_> = found
        .map_err(|source| DialError::Lookup {
            host: server.host.clone(),
            source,
        })?
        .take(STAGGERED)
        .collect();
    let next = |n: usize| addresses.get(n % addresses.len().max(1)).copied();
    let tcp = staggered(addresses.len(), |n| async move {
        let address = next(n).ok_or(io::ErrorKind::AddrNotAvailable)?;
        TcpStream::connect(address).await
    });
    let tcp = tcp.await.map_err(failed)?;
    // Frames are small and somebody waits for each of them.
    tcp.set_nodelay(true).map_err(failed)?;
    TlsConnector::from(config)
        .connect(server.name()?, tcp)
        .await
        .map_err(|source| tls_failed(shown, source))
}

/// The first of several attempts, each a little later than the one before, to succeed. The first `different`
/// ones are to different addresses: where one fails the next begins at once. When all of these have failed and
/// nothing is under way any more, the last one's error is the answer.
async fn staggered<T, F>(different: usize, attempt: impl Fn(usize) -> F) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let deadline = Instant::now() + CONNECT;
    let mut under_way = FuturesUnordered::new();
    let mut begun = 0;
    let mut next = interval(STAGGER);
    let work = async {
        loop {
            tokio::select! {
                _ = next.tick(), if begun < STAGGERED => {
                    under_way.push(attempt(begun));
                    begun += 1;
                }
                Some(result) = under_way.next() => match result {
                    Ok(done) => return Ok(done),
                    Err(_) if begun < different => next.reset_immediately(),
                    Err(error) if under_way.is_empty() => return Err(error),
                    Err(_) => {}
                },
            }
        }
    };
    match timeout_at(deadline, work).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {CONNECT:?}"),
        )),
    }
}

fn tls_failed(server: String, source: io::Error) -> DialError {
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

    /// What each attempt does.
    #[derive(Clone, Copy)]
    enum Does {
        Hang,
        Fail,
        Answer,
    }

    async fn tried(different: usize, does: &[Does]) -> (usize, Result<usize, String>) {
        let begun = std::cell::Cell::new(0);
        let result = staggered(different, |n| {
            begun.set(begun.get() + 1);
            async move {
                match does.get(n).copied().unwrap_or(Does::Hang) {
                    Does::Hang => std::future::pending().await,
                    Does::Fail => Err(io::Error::other(format!("attempt {n}"))),
                    Does::Answer => Ok(n),
                }
            }
        });
        let result = timeout(Duration::from_secs(3), result).await.unwrap();
        (begun.get(), result.map_err(|e| e.to_string()))
    }

    #[tokio::test]
    async fn a_lost_connection_request_is_overtaken_and_every_address_gets_its_turn() {
        use Does::*;
        for (what, different, does, wanted) in [
            ("one answers", 1, &[Answer][..], (1, Ok(0))),
            (
                "one refuses: no more of it",
                1,
                &[Fail],
                (1, Err("attempt 0")),
            ),
            ("the first is lost", 1, &[Hang, Hang, Answer], (3, Ok(2))),
            ("the second address answers", 2, &[Fail, Answer], (2, Ok(1))),
            ("both refuse", 2, &[Fail, Fail], (2, Err("attempt 1"))),
            (
                "one is lost, the other refuses",
                2,
                &[Hang, Fail, Answer],
                (3, Ok(2)),
            ),
        ] {
            let wanted = (wanted.0, wanted.1.map_err(str::to_owned));
            assert_eq!(tried(different, does).await, wanted, "{what}");
        }
    }

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
