//! From an accepted socket to an admitted client: the first packet, who it is, its session and
//! the CONNACK.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use edgebus_bus::{Role, limits};
use tokio::time::Instant;

use super::wire::{Input, Output};
use super::{Conn, Door, Stream, outbox::Outbox, subs::Sub, window::Window};
use crate::acl::Rules;
use crate::broker::Broker;
use crate::codec::{ConnAck, Connect, Packet, Properties, ReasonCode, Version};
use crate::router::Queue;
use crate::store::Job;

/// Topic aliases that a client may use towards us.
pub(super) const ALIASES: u16 = 32;
/// Longest client id.
const CLIENT_ID_BYTES: usize = 256;

/// Why a client is not admitted.
struct Refusal {
    reason: ReasonCode,
    why: String,
}

fn refuse(reason: ReasonCode, why: impl Into<String>) -> Refusal {
    Refusal {
        reason,
        why: why.into(),
    }
}

/// Waits for CONNECT, answers it, and returns the connection if it is admitted.
pub(super) async fn admit(broker: &Arc<Broker>, stream: Stream, door: Door) -> Option<Conn> {
    let (reader, writer) = stream;
    let mut input = Input::new(reader);
    let mut output = Output::new(writer);
    let first = tokio::time::timeout(
        broker.config.connect_timeout,
        first_packet(&mut input, &mut output),
    );
    let connect = match first.await {
        Ok(Some(connect)) => connect,
        Ok(None) => {
            broker.counters.turned_away.up();
            return None;
        }
        Err(_) => {
            tracing::info!(%door, "a connection sent no CONNECT in time");
            broker.counters.turned_away.up();
            return None;
        }
    };
    output.version = connect.version;
    match welcome(broker, input, output, *connect, &door).await {
        Ok(conn) => Some(conn),
        Err((refusal, mut output, client_id)) => {
            tracing::info!(%door, client_id, why = refusal.why, "CONNECT refused");
            broker.counters.turned_away.up();
            let mut properties = Properties::NONE;
            properties.reason_string = Some(refusal.why);
            output.put(&Packet::ConnAck(ConnAck {
                session_present: false,
                reason: refusal.reason,
                properties: if output.version == Version::V5 {
                    properties
                } else {
                    Properties::NONE
                },
            }));
            finish(output).await;
            None
        }
    }
}

/// Writes the last words to a peer that may not listen.
async fn finish(mut output: Output) {
    let closing = tokio::time::timeout(Duration::from_secs(2), output.close());
    if let Ok(Err(error)) = closing.await {
        tracing::debug!(%error, "the peer was gone before it was answered");
    }
}

async fn first_packet(input: &mut Input, output: &mut Output) -> Option<Box<Connect>> {
    loop {
        match input.packet(None) {
            Ok(Some(Packet::Connect(connect))) => return Some(connect),
            Ok(Some(_)) => return None,
            Ok(None) => {}
            Err(error) => {
                tracing::info!(%error, "a peer does not speak MQTT as we do");
                if let Some(version) = error.answer_version() {
                    output.version = version;
                    output.put(&Packet::ConnAck(ConnAck {
                        session_present: false,
                        reason: error.reason(),
                        properties: Properties::NONE,
                    }));
                    drop(output.close().await);
                }
                return None;
            }
        }
        match input.read().await {
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

fn authenticate(broker: &Broker, connect: &Connect, door: &Door) -> Result<Arc<Rules>, Refusal> {
    if let Some(method) = &connect.properties.authentication_method {
        return Err(refuse(
            ReasonCode::BadAuthenticationMethod,
            format!("authentication method {method:?} is not supported: use user name and token"),
        ));
    }
    // 3.1.1 has a code for it, but brokers answer "not authorised", and clients expect that.
    let bad = match connect.version {
        Version::V4 => ReasonCode::NotAuthorized,
        Version::V5 => ReasonCode::BadUserNameOrPassword,
    };
    match (&connect.username, &connect.password, door) {
        (Some(name), Some(token), _) => broker
            .grants
            .check(name, token)
            .ok_or_else(|| refuse(bad, format!("unknown user {name:?} or wrong token"))),
        (None, None, Door::Admin { trusted: true }) => {
            Ok(broker.grants.known(Role::Operator, "operator"))
        }
        (None, None, Door::App) => Ok(broker.grants.known(Role::App, "app")),
        (None, None, Door::Tcp(_)) if broker.config.anonymous_tcp => {
            Ok(broker.grants.known(Role::App, "app"))
        }
        (Some(name), None, _) => Err(refuse(bad, format!("user {name:?} gave no token"))),
        _ => Err(refuse(bad, "a user name and a token are needed here")),
    }
}

fn client_id(connect: &Connect, rules: &Rules) -> Result<(String, bool), Refusal> {
    let name = &rules.identity().name;
    if connect.client_id.is_empty() {
        if connect.version == Version::V4 && !connect.clean_start {
            return Err(refuse(
                ReasonCode::ClientIdentifierNotValid,
                "a persistent session needs a client id",
            ));
        }
        let mut bytes = [0u8; 8];
        if let Err(error) = getrandom::fill(&mut bytes) {
            let why = format!("no random client id: {error}");
            return Err(refuse(ReasonCode::ServerUnavailable, why));
        }
        let mut id = format!("{name}.auto-");
        for byte in bytes {
            write!(id, "{byte:02x}").expect("writing to a string");
        }
        return Ok((id, true));
    }
    let id = &connect.client_id;
    if id.len() > CLIENT_ID_BYTES || id.chars().any(char::is_control) {
        let why = format!(
            "a client id has at most {CLIENT_ID_BYTES} bytes, none of them control characters"
        );
        return Err(refuse(ReasonCode::ClientIdentifierNotValid, why));
    }
    if !rules.owns_client_id(id) {
        let why = format!(
            "client id {id:?} is not {name}'s: it must be {name:?} or begin with \"{name}.\""
        );
        return Err(refuse(ReasonCode::ClientIdentifierNotValid, why));
    }
    Ok((id.clone(), false))
}

fn check_will(connect: &Connect, rules: &Rules) -> Result<(), Refusal> {
    let Some(will) = &connect.will else {
        return Ok(());
    };
    if will.qos == crate::codec::QoS::ExactlyOnce {
        return Err(refuse(
            ReasonCode::QoSNotSupported,
            "the will has QoS 2: at most 1 is supported",
        ));
    }
    if let Err(error) = edgebus_bus::filter::check_name(&will.topic) {
        let why = format!("will topic {:?}: {error}", will.topic);
        return Err(refuse(ReasonCode::TopicNameInvalid, why));
    }
    match rules.may_publish(&will.topic, will.retain) {
        Ok(_) => Ok(()),
        Err(refusal) => Err(refuse(
            ReasonCode::NotAuthorized,
            format!("will: {refusal}"),
        )),
    }
}

type Refused = (Refusal, Output, String);

async fn welcome(
    broker: &Arc<Broker>,
    input: Input,
    mut output: Output,
    connect: Connect,
    door: &Door,
) -> Result<Conn, Refused> {
    let checked = authenticate(broker, &connect, door).and_then(|rules| {
        let id = client_id(&connect, &rules)?;
        check_will(&connect, &rules)?;
        Ok((rules, id))
    });
    let (rules, (id, assigned)) = match checked {
        Ok(known) => known,
        Err(refusal) => return Err((refusal, output, connect.client_id)),
    };
    let key: Arc<str> = format!("{}/{id}", rules.identity().name).into();
    let seat = match broker.registry.enter(&key).await {
        Ok(seat) => seat,
        Err(error) => {
            let refusal = refuse(ReasonCode::ServerBusy, error.to_string());
            return Err((refusal, output, id));
        }
    };
    let expiry_s = expiry(&connect, broker.config.session_expiry_max);
    let opened = broker.store.ask(|reply| Job::Open {
        key: key.clone(),
        clean: connect.clean_start,
        keep: expiry_s > 0,
        reply,
    });
    let opened = match opened.await {
        Ok(opened) => opened,
        Err(error) => {
            let refusal = refuse(error.connect_reason(), error.to_string());
            return Err((refusal, output, id));
        }
    };
    if opened.inbox && connect.clean_start {
        broker
            .store
            .send(Job::Leave {
                session: opened.session,
                expiry_s: u32::MAX,
            })
            .await;
        let why = "this is an inbox: its session cannot be discarded, connect with clean start 0";
        let refusal = refuse(ReasonCode::NotAuthorized, why);
        return Err((refusal, output, id));
    }
    let mut left = broker.registry.take_left(&key);
    if !opened.present {
        left.clear();
    }
    let (link, mail) = if opened.session == 0 {
        let link = broker.router.link(Queue {
            messages: broker.config.queue_messages,
            bytes: broker.config.queue_bytes,
            ..Queue::default()
        });
        match link.await {
            Ok(link) => (Some(link), None),
            Err(error) => {
                let refusal = refuse(ReasonCode::ServerUnavailable, error.to_string());
                return Err((refusal, output, id));
            }
        }
    } else {
        (None, Some(broker.mailboxes.open(opened.session)))
    };
    output.max_packet = connect
        .properties
        .maximum_packet_size
        .and_then(|max| usize::try_from(max).ok())
        .unwrap_or(usize::MAX);
    output.put(&Packet::ConnAck(ConnAck {
        session_present: opened.present,
        reason: ReasonCode::Success,
        properties: connack_properties(broker, &connect, expiry_s, assigned.then_some(&id)),
    }));
    let receive_max = connect.properties.receive_maximum.unwrap_or(u16::MAX);
    let mut conn = Conn {
        broker: broker.clone(),
        key,
        client_id: id,
        version: connect.version,
        input,
        output,
        session: opened.session,
        inbox: opened.inbox,
        link,
        mail,
        subs: HashMap::new(),
        ahead: false,
        aliases: HashMap::new(),
        pending: VecDeque::new(),
        pending_bytes: 0,
        outbox: Outbox::new(opened.session != 0),
        window: Window::new(receive_max.min(broker.config.in_flight), left),
        load: None,
        keep_alive: keep_alive(connect.keep_alive),
        heard: Instant::now(),
        wrote: Instant::now(),
        will: connect.will,
        expiry_s,
        explain: connect.properties.request_problem_information != Some(false),
        notes: 0,
        replayed: Vec::new(),
        seat,
        rules,
    };
    for (wish, replay) in opened.wishes {
        let filter = wish.filter.clone();
        conn.subs.insert(filter.clone(), Sub::resumed(wish));
        if replay {
            // Nothing has come yet that could overflow.
            drop(conn.start_replay(&filter).await);
        }
    }
    Ok(conn)
}

/// Half as much again as the client promised (3.1.2.10).
fn keep_alive(seconds: u16) -> Option<Duration> {
    (seconds != 0).then(|| Duration::from_millis(u64::from(seconds) * 1500))
}

/// Seconds to keep the session after the connection.
pub(super) fn expiry(connect: &Connect, max: Duration) -> u32 {
    let max = u32::try_from(max.as_secs()).unwrap_or(u32::MAX);
    match connect.version {
        Version::V4 if connect.clean_start => 0,
        Version::V4 => max,
        Version::V5 => {
            let wanted = connect.properties.session_expiry_interval.unwrap_or(0);
            wanted.min(max)
        }
    }
}

fn connack_properties(
    broker: &Broker,
    connect: &Connect,
    expiry_s: u32,
    assigned: Option<&String>,
) -> Properties {
    let mut p = Properties::NONE;
    if connect.version == Version::V4 {
        return p;
    }
    p.receive_maximum = Some(broker.config.in_flight);
    p.maximum_qos = Some(1);
    p.maximum_packet_size = u32::try_from(limits::PACKET_BYTES).ok();
    p.topic_alias_maximum = Some(ALIASES);
    p.shared_subscription_available = Some(false);
    p.assigned_client_id = assigned.cloned();
    if connect.properties.session_expiry_interval.unwrap_or(0) != expiry_s {
        p.session_expiry_interval = Some(expiry_s);
    }
    p.user
        .push(("store_id".into(), broker.store.id().to_string()));
    p
}
