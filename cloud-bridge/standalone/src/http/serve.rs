//! Connections: TLS, HTTP/1.1 and HTTP/2, and the way of one request through the server.

use super::answer::{self, Answer};
use super::path::{self, Route};
use super::query::Query;
use super::{accept, discovery, openapi, resources};
use crate::auth::{Ask, User, allowed, authenticate, from_certificate, impersonate};
use crate::error::{ApiError, Result};
use crate::ops::{Api, Body, MOST_BYTES};
use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, USER_AGENT};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

const HANDSHAKE: Duration = Duration::from_secs(10);
/// Also the longest a kept connection idles: longer than clients keep theirs (90 s), so that
/// it is they who close and no request is lost to the race.
const HEADERS: Duration = Duration::from_secs(120);
const BODY: Duration = Duration::from_secs(60);
/// What is under way when the server stops gets so long to end.
const FAREWELL: Duration = Duration::from_secs(5);
const MOST_CONNECTIONS: usize = 1024;

/// Serves until the API's `stop`, then lets what is under way end.
pub async fn serve(api: Arc<Api>, listener: TcpListener, tls: TlsAcceptor) {
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let place = tokio::select! {
            () = api.stop.cancelled() => break,
            place = places.clone().acquire_owned() => place,
        };
        let Ok(place) = place else { break };
        let accepted = tokio::select! {
            () = api.stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (api, tls) = (api.clone(), tls.clone());
                connections.spawn(async move {
                    connection(api, tls, stream, peer).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: give connections time to close.
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(FAREWELL, connections.wait())
        .await
        .is_err()
    {
        tracing::warn!("{} connections did not end in time", connections.len());
    }
}

async fn connection(api: Arc<Api>, tls: TlsAcceptor, stream: TcpStream, peer: SocketAddr) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("{peer}: cannot set TCP_NODELAY: {error}");
    }
    let stream = match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!("{peer}: TLS handshake failed: {error}"),
        Err(_) => return tracing::debug!("{peer}: TLS handshake took too long"),
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let user = certificates
        .and_then(|chain| chain.first())
        .and_then(|leaf| from_certificate(leaf));
    let user = Arc::new(user);
    let local = stream
        .get_ref()
        .0
        .local_addr()
        .map_or_else(|_| String::new(), |a| a.to_string());
    let local: Arc<str> = local.into();
    let service = {
        let api = api.clone();
        service_fn(move |request| {
            let (api, user, local) = (api.clone(), user.clone(), local.clone());
            async move { Ok::<_, Infallible>(respond(api, user, local, request).await) }
        })
    };
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(250)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    let mut serving = std::pin::pin!(
        builder
            .serve_connection_with_upgrades(TokioIo::new(stream), service)
            .into_owned()
    );
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = api.stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("{peer}: connection ended: {error}");
    }
}

async fn respond(
    api: Arc<Api>,
    certificate: Arc<Option<User>>,
    local: Arc<str>,
    request: Request<Incoming>,
) -> Answer {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let head = method == Method::HEAD;
    let mut answer = match route(&api, certificate.as_ref().as_ref(), &local, request).await {
        Ok(answer) => answer,
        Err(error) => {
            if error.code.is_server_error() {
                tracing::warn!("{method} {uri}: {error}");
            }
            answer::error(&error)
        }
    };
    if head {
        *answer.body_mut() = http_body_util::Empty::new().boxed_unsync();
    }
    let audit = uuid::Uuid::new_v4().to_string();
    if let Ok(value) = HeaderValue::from_str(&audit) {
        answer
            .headers_mut()
            .insert(HeaderName::from_static("audit-id"), value);
    }
    tracing::debug!("{method} {uri} {}", answer.status().as_u16());
    answer
}

fn word<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Accept may come in several headers.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let all: Vec<&str> = headers
        .get_all(name)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .collect();
    (!all.is_empty()).then(|| all.join(","))
}

async fn route(
    api: &Arc<Api>,
    certificate: Option<&User>,
    local: &str,
    request: Request<Incoming>,
) -> Result<Answer> {
    let headers = request.headers();
    let user = authenticate(api, certificate, word(headers, &AUTHORIZATION)).await?;
    let user = impersonate(api, user, headers).await?;
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let route = path::parse(&path);
    if let Route::Resource(path) = route {
        let query = Query::parse(request.uri().query().unwrap_or(""))?;
        let accept = joined(headers, &ACCEPT);
        let agent = word(headers, &USER_AGENT).unwrap_or("").to_owned();
        let now = api.now();
        if !now.has_version(&path.group, &path.version) && user.is_master() {
            return Ok(answer::text(StatusCode::NOT_FOUND, "404 page not found\n"));
        }
        let media = word(headers, &CONTENT_TYPE)
            .and_then(|m| m.split(';').next())
            .unwrap_or("")
            .trim()
            .to_ascii_lowercase();
        let body = Body {
            bytes: read(request).await?,
            media,
        };
        let request = resources::Request {
            method,
            path,
            query,
            accept,
            agent,
            user,
            body,
        };
        return resources::handle(api, request).await;
    }
    let verb = match method {
        Method::GET | Method::HEAD => "get",
        _ => "post",
    };
    let ask = Ask::path(verb, &path);
    if !allowed(api, &user, &ask).await? {
        return Err(ask.refused(&user));
    }
    if verb != "get" {
        return Err(ApiError::method_not_allowed());
    }
    let now = api.now();
    let wanted = joined(headers, &ACCEPT);
    let aggregated = accept::discovery(wanted.as_deref());
    Ok(match route {
        Route::CoreVersions => match aggregated {
            Some(version) => discovery::aggregated(&now, version, true),
            None => discovery::core_versions(local),
        },
        Route::Groups => match aggregated {
            Some(version) => discovery::aggregated(&now, version, false),
            None => discovery::groups(&now),
        },
        Route::Group(group) => match discovery::group(&now, &group) {
            Some(answer) => answer,
            None => answer::text(StatusCode::NOT_FOUND, "404 page not found\n"),
        },
        Route::GroupVersion(group, version) => {
            if !now.has_version(&group, &version) {
                return Ok(answer::text(StatusCode::NOT_FOUND, "404 page not found\n"));
            }
            discovery::resources(&now, &group, &version)?
        }
        Route::Version => discovery::version(),
        Route::Health => answer::text(StatusCode::OK, "ok"),
        Route::OpenApiIndex => openapi::index(&now),
        Route::OpenApi(group, version) => openapi::document(api.clone(), &group, &version).await?,
        Route::OpenApiV2 => openapi::version_2(wanted.as_deref().unwrap_or(""))?,
        Route::Unknown | Route::Resource(_) => {
            answer::text(StatusCode::NOT_FOUND, "404 page not found\n")
        }
    })
}

/// Reads a body of bounded size in bounded time.
async fn read(request: Request<Incoming>) -> Result<Bytes> {
    let announced = word(request.headers(), &CONTENT_LENGTH).and_then(|l| l.parse().ok());
    if announced.is_some_and(|length: u64| length > MOST_BYTES as u64) {
        return Err(ApiError::too_large(MOST_BYTES));
    }
    let mut body = request.into_body();
    let whole = async {
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame
                .map_err(|error| ApiError::bad_request(format!("cannot read the body: {error}")))?;
            if let Ok(data) = frame.into_data() {
                if whole.len() + data.len() > MOST_BYTES {
                    return Err(ApiError::too_large(MOST_BYTES));
                }
                whole.extend_from_slice(&data);
            }
        }
        Ok(whole.freeze())
    };
    tokio::time::timeout(BODY, whole)
        .await
        .unwrap_or_else(|_| Err(ApiError::timeout("the request's body took too long")))
}
