//! The endpoint that nodes dial: enrolment and the link on one port, and health for whoever watches the bridge.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use edgebus_linkproto::{ENROL_PATH, EnrolRequest, LINK_PATH, SUBPROTOCOL, limits};
use http::header::{CONNECTION, CONTENT_TYPE, UPGRADE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls_pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::enrol::{Admission, Answer};
use crate::metrics::count;
use crate::shared::Shared;
use crate::{link, tls};

const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections at once, links included.
const CONNECTIONS: usize = 4096;
/// An enrolment request.
const BODY_MAX: usize = 128 << 10;
/// The endpoint's certificate is made anew so often.
const FRESH: Duration = Duration::from_secs(24 * 3600);

type Reply = Response<Full<Bytes>>;

/// Accepts nodes until `stop`. Handshakes never happen in this loop.
pub async fn nodes(
    shared: &Arc<Shared>,
    listener: &TcpListener,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let make = || tls::server(&shared.door.ca, &shared.config.names, shared.config.grace);
    let (mut config, mut made) = (make()?, Instant::now());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return Ok(()),
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("accepting a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if made.elapsed() > FRESH {
            (config, made) = (make()?, Instant::now());
        }
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::warn!("{CONNECTIONS} connections are open: one more is turned away");
            continue;
        };
        let (shared, tasks_, stop) = (shared.clone(), tasks.clone(), stop.clone());
        let acceptor = TlsAcceptor::from(config.clone());
        tasks.spawn(async move {
            if let Err(why) = connection(shared, acceptor, stream, tasks_, stop).await {
                tracing::debug!("connection: {why}");
            }
            drop(place);
        });
    }
}

async fn connection(
    shared: Arc<Shared>,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    tasks: TaskTracker,
    stop: CancellationToken,
) -> Result<(), String> {
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
    let tls = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream))
        .await
        .map_err(|_| "no TLS handshake in time".to_owned())?
        .map_err(|e| {
            count(&shared.metrics.refused_connections);
            format!("TLS: {e}")
        })?;
    let certs = tls.get_ref().1.peer_certificates();
    let cert = certs
        .and_then(<[_]>::first)
        .map(|cert| Arc::new(cert.clone().into_owned()));
    let service = service_fn(|request| {
        let (shared, cert, tasks, stop) =
            (shared.clone(), cert.clone(), tasks.clone(), stop.clone());
        async move { Ok::<_, std::convert::Infallible>(route(shared, request, cert, tasks, stop).await) }
    });
    let serve = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HANDSHAKE)
        .max_buf_size(64 << 10)
        .serve_connection(TokioIo::new(tls), service)
        .with_upgrades();
    tokio::select! {
        done = serve => done.map_err(|e| e.to_string()),
        () = stop.cancelled() => Ok(()),
    }
}

async fn route(
    shared: Arc<Shared>,
    request: Request<Incoming>,
    cert: Option<Arc<CertificateDer<'static>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
) -> Reply {
    let result = match (request.method(), request.uri().path()) {
        (&Method::GET, "/healthz") => return text(StatusCode::OK, "ok\n"),
        (&Method::GET, "/readyz") => return ready(&shared),
        (&Method::POST, ENROL_PATH) => enrol(&shared, request).await,
        (&Method::GET, LINK_PATH) => open(shared.clone(), request, cert, tasks, stop).await,
        (_, path @ (ENROL_PATH | LINK_PATH)) => {
            let why = format!(
                "{path} is for {}",
                if path == ENROL_PATH { "POST" } else { "GET" }
            );
            Err(Answer::new(StatusCode::METHOD_NOT_ALLOWED, "method", why))
        }
        (_, path) => {
            let path: String = path.chars().take(200).collect();
            let why = format!(
                "nothing is at {path:?}; there are {ENROL_PATH}, {LINK_PATH}, /healthz and /readyz"
            );
            Err(Answer::new(StatusCode::NOT_FOUND, "not-found", why))
        }
    };
    result.unwrap_or_else(|answer| {
        count(&shared.metrics.refused_connections);
        tracing::info!(
            status = answer.status.as_u16(),
            error = answer.body.error,
            "refused: {}",
            answer.body.why
        );
        json(answer.status, &answer.body)
    })
}

fn json(status: StatusCode, body: &impl serde::Serialize) -> Reply {
    let body = serde_json::to_vec(body).unwrap_or_default();
    let mut reply = Response::new(Full::new(Bytes::from(body)));
    *reply.status_mut() = status;
    let value = http::HeaderValue::from_static("application/json");
    reply.headers_mut().insert(CONTENT_TYPE, value);
    reply
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    reply
}

fn ready(shared: &Shared) -> Reply {
    if shared.mirror().ready() {
        text(StatusCode::OK, "ok\n")
    } else {
        text(
            StatusCode::SERVICE_UNAVAILABLE,
            "lists are still being read\n",
        )
    }
}

async fn enrol(shared: &Shared, request: Request<Incoming>) -> Result<Reply, Answer> {
    let result = enrolled(shared, request).await;
    count(match result {
        Ok(_) => &shared.metrics.enrolled,
        Err(_) => &shared.metrics.enrol_refused,
    });
    result
}

async fn enrolled(shared: &Shared, request: Request<Incoming>) -> Result<Reply, Answer> {
    let bad = |why: String| Answer::new(StatusCode::BAD_REQUEST, "bad-request", why);
    let body = Limited::new(request.into_body(), BODY_MAX);
    let body = tokio::time::timeout(HANDSHAKE, body.collect())
        .await
        .map_err(|_| bad("the request did not come in time".to_owned()))?
        .map_err(|e| {
            let why = format!("reading the request: {e}; allowed are {BODY_MAX} bytes");
            Answer::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", why)
        })?;
    let ask: EnrolRequest = serde_json::from_slice(&body.to_bytes())
        .map_err(|e| bad(format!("the request is not as expected: {e}")))?;
    let place = tokio::time::timeout(HANDSHAKE, shared.enrolling.acquire()).await;
    let Ok(Ok(_place)) = place else {
        let why = "too many nodes ask at once; try again";
        return Err(Answer::new(StatusCode::TOO_MANY_REQUESTS, "busy", why));
    };
    Ok(json(StatusCode::OK, &shared.door.enrol(ask).await?))
}

fn has(headers: &HeaderMap, name: impl http::header::AsHeaderName, word: &str) -> bool {
    let values = headers
        .get_all(name)
        .into_iter()
        .filter_map(|v| v.to_str().ok());
    values
        .flat_map(|v| v.split(','))
        .any(|v| v.trim().eq_ignore_ascii_case(word))
}

/// The key of a WebSocket handshake for our subprotocol.
fn websocket(headers: &HeaderMap) -> Result<String, Answer> {
    let bad = |why: String| Answer::new(StatusCode::BAD_REQUEST, "no-websocket", why);
    if !has(headers, UPGRADE, "websocket") || !has(headers, CONNECTION, "upgrade") {
        return Err(bad(format!("{LINK_PATH} is a WebSocket")));
    }
    if !has(headers, "sec-websocket-version", "13") {
        return Err(bad("only WebSocket version 13 is spoken".to_owned()));
    }
    if !has(headers, "sec-websocket-protocol", SUBPROTOCOL) {
        return Err(bad(format!("the subprotocol must be {SUBPROTOCOL}")));
    }
    let key = headers
        .get("sec-websocket-key")
        .ok_or_else(|| bad("no Sec-WebSocket-Key".to_owned()))?;
    Ok(derive_accept_key(key.as_bytes()))
}

async fn open(
    shared: Arc<Shared>,
    mut request: Request<Incoming>,
    cert: Option<Arc<CertificateDer<'static>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
) -> Result<Reply, Answer> {
    let Some(cert) = cert else {
        let why = "a link needs the node's client certificate; `edgebus join` gets one";
        return Err(Answer::new(StatusCode::UNAUTHORIZED, "no-certificate", why));
    };
    let peer = tls::peer(&cert)
        .map_err(|e| Answer::new(StatusCode::FORBIDDEN, "bad-certificate", e.to_string()))?;
    let accept = websocket(request.headers())?;
    let admission = shared.door.admit(&peer).await?;
    let upgrade = hyper::upgrade::on(&mut request);
    tasks.spawn(async move {
        let upgraded = tokio::select! {
            upgraded = upgrade => upgraded,
            () = tokio::time::sleep(HANDSHAKE) => return,
            () = stop.cancelled() => return,
        };
        match upgraded {
            Ok(upgraded) => run_link(shared, admission, upgraded, stop).await,
            Err(error) => tracing::debug!("upgrade: {error}"),
        }
    });
    let mut reply = text(StatusCode::SWITCHING_PROTOCOLS, "");
    let headers = reply.headers_mut();
    let value = |text: &str| {
        http::HeaderValue::from_str(text)
            .map_err(|_| Answer::new(StatusCode::INTERNAL_SERVER_ERROR, "header", "not a header"))
    };
    headers.insert(UPGRADE, value("websocket")?);
    headers.insert(CONNECTION, value("Upgrade")?);
    headers.insert("sec-websocket-accept", value(&accept)?);
    headers.insert("sec-websocket-protocol", value(SUBPROTOCOL)?);
    Ok(reply)
}

async fn run_link(
    shared: Arc<Shared>,
    admission: Admission,
    upgraded: hyper::upgrade::Upgraded,
    stop: CancellationToken,
) {
    let config = WebSocketConfig::default()
        .read_buffer_size(16 << 10)
        .max_message_size(Some(limits::MESSAGE_BYTES))
        .max_frame_size(Some(limits::MESSAGE_BYTES));
    let ws =
        WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
    link::serve(shared, admission, ws, stop).await;
}

/// Health and metrics without TLS, for a loopback or pod address.
pub async fn health(
    shared: Arc<Shared>,
    listener: Arc<TcpListener>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(16));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let (Ok((stream, _)), Ok(place)) = (accepted, places.clone().try_acquire_owned()) else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let (shared, stop) = (shared.clone(), stop.clone());
        tasks.spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let shared = shared.clone();
                async move {
                    let reply = match request.uri().path() {
                        "/healthz" => text(StatusCode::OK, "ok\n"),
                        "/readyz" => ready(&shared),
                        "/metrics" => text(StatusCode::OK, shared.metrics.text()),
                        _ => text(
                            StatusCode::NOT_FOUND,
                            "there are /healthz, /readyz and /metrics\n",
                        ),
                    };
                    Ok::<_, std::convert::Infallible>(reply)
                }
            });
            let serve = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HANDSHAKE)
                .serve_connection(TokioIo::new(stream), service);
            let serve = tokio::time::timeout(HANDSHAKE * 6, serve);
            tokio::select! {
                done = serve => if let Ok(Err(error)) = done {
                    tracing::debug!("health: {error}");
                },
                () = stop.cancelled() => {}
            }
            drop(place);
        });
    }
}
