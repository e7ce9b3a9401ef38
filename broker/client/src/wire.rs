//! One MQTT 5 connection over rumqttc's codec; the only file that names rumqttc.
//!
//! rumqttc's own event loop is not used, for reasons found in its source (0.25): `poll` is not
//! cancel-safe (a packet taken from the queue can be lost while the socket is full); while a
//! reader is slow it neither pings nor writes, because one future does both; on a reconnect
//! without a session it clears everything unacknowledged, subscriptions included; see also
//! [`crate::flight`].

use crate::error::Code;
use crate::message::Message;
use crate::options::{Address, ConnectOptions};
use bytes::{Bytes, BytesMut};
use edgebus_bus::limits::PACKET_BYTES;
use rumqttc::v5::mqttbytes::v5::{
    Codec, ConnAck, Connect, ConnectProperties, ConnectReturnCode, Disconnect,
    DisconnectReasonCode, Filter, LastWill, Login, Packet, PingReq, PubAck, PubAckReason, Publish,
    Subscribe, SubscribeReasonCode, Unsubscribe,
};
use rumqttc::v5::mqttbytes::{Error as CodecError, QoS};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_util::codec::{Decoder, Encoder};

/// How long a connection may take, handshake included.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// QoS 1 messages that the broker may send us before we acknowledge.
const RECEIVE_MAX: u16 = 64;

/// Why there is no connection, or no longer one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the broker refused the connection: {0}")]
    Refused(Code),
    #[error("no CONNACK within {CONNECT_TIME:?}")]
    Slow,
    #[error("the broker closed the connection")]
    Ended,
    #[error("the broker closed the connection: {0}")]
    Disconnected(String),
    #[error("malformed packet from the broker: {0}")]
    Malformed(String),
}

/// What the session needs to know of a packet.
pub(crate) enum Incoming {
    Message { pkid: u16, message: Message },
    PubAck { pkid: u16, refusal: Refusal },
    SubAck { pkid: u16, refusals: Vec<Refusal> },
    UnsubAck { pkid: u16 },
    Pong,
}

/// MQTT's reason code and the broker's words, if it refused.
pub(crate) type Refusal = Option<(Code, Option<String>)>;

/// What CONNACK said.
pub(crate) struct Accepted {
    pub session_present: bool,
    pub receive_max: u16,
    pub keep_alive: Duration,
}

type Reader = Box<dyn AsyncRead + Send + Unpin>;
type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// A connection.
pub(crate) struct Wire {
    pub reader: Inlet,
    pub writer: Outlet,
}

/// Its reading half.
pub(crate) struct Inlet {
    socket: Reader,
    buffer: BytesMut,
    codec: Codec,
}

/// Its writing half: packets are queued, then written when the socket takes them.
pub(crate) struct Outlet {
    socket: Writer,
    buffer: BytesMut,
    codec: Codec,
}

impl Wire {
    /// Connects as `options` say. `keep_session` asks the broker to queue while we are away.
    pub async fn connect(
        options: &ConnectOptions,
        will: Option<&Message>,
        keep_session: bool,
    ) -> Result<(Self, Accepted), WireError> {
        timeout(CONNECT_TIME, Self::handshake(options, will, keep_session))
            .await
            .map_err(|_| WireError::Slow)?
    }

    async fn handshake(
        options: &ConnectOptions,
        will: Option<&Message>,
        keep_session: bool,
    ) -> Result<(Self, Accepted), WireError> {
        let (reader, writer): (Reader, Writer) = match &options.address {
            Address::Unix(path) => {
                let (r, w) = UnixStream::connect(path).await?.into_split();
                (Box::new(r), Box::new(w))
            }
            Address::Tcp(at) => {
                let socket = TcpStream::connect(at).await?;
                socket.set_nodelay(true)?;
                let (r, w) = socket.into_split();
                (Box::new(r), Box::new(w))
            }
        };
        let mut wire = Self {
            reader: Inlet {
                socket: reader,
                buffer: BytesMut::new(),
                codec: Codec {
                    max_incoming_size: Some(PACKET_BYTES as u32),
                    max_outgoing_size: None,
                },
            },
            writer: Outlet {
                socket: writer,
                buffer: BytesMut::new(),
                codec: Codec {
                    max_incoming_size: None,
                    max_outgoing_size: Some(PACKET_BYTES as u32),
                },
            },
        };
        wire.writer
            .put(connect_packet(options, will, keep_session))?;
        while !wire.writer.is_empty() {
            wire.writer.write().await?;
        }
        loop {
            match wire.reader.packet()? {
                Some(Packet::ConnAck(ack)) => return accepted(&ack, options).map(|a| (wire, a)),
                Some(other) => {
                    return Err(WireError::Malformed(format!(
                        "expected CONNACK, got {other:?}"
                    )));
                }
                None => wire.reader.fill().await?,
            }
        }
    }
}

fn connect_packet(options: &ConnectOptions, will: Option<&Message>, keep: bool) -> Packet {
    let properties = ConnectProperties {
        session_expiry_interval: Some(if keep { u32::MAX } else { 0 }),
        receive_maximum: Some(RECEIVE_MAX),
        max_packet_size: Some(PACKET_BYTES as u32),
        topic_alias_max: None,
        request_response_info: None,
        request_problem_info: Some(1),
        user_properties: vec![],
        authentication_method: None,
        authentication_data: None,
    };
    let connect = Connect {
        keep_alive: options.keep_alive_s,
        client_id: options.client_id.clone(),
        clean_start: !keep,
        properties: Some(properties),
    };
    let will = will.map(|m| {
        LastWill::new(
            m.topic.clone(),
            m.payload.to_vec(),
            qos(m.qos),
            m.retain,
            None,
        )
    });
    // Without a token the kernel or the socket says who we are, and a name would be a claim.
    let login = options.token.as_ref().map(|token| Login {
        username: options.name.to_string(),
        password: token.clone(),
    });
    Packet::Connect(connect, will, login)
}

fn accepted(ack: &ConnAck, options: &ConnectOptions) -> Result<Accepted, WireError> {
    use ConnectReturnCode as C;
    let refused = match ack.code {
        C::Success => None,
        C::NotAuthorized | C::Banned => Some(Code::NotAuthorized),
        C::BadUserNamePassword | C::BadAuthenticationMethod => Some(Code::BadUserNameOrPassword),
        C::QuotaExceeded => Some(Code::QuotaExceeded),
        C::ServerBusy
        | C::ServerUnavailable
        | C::ServiceUnavailable
        | C::ConnectionRateExceeded => Some(Code::Busy),
        C::TopicNameInvalid => Some(Code::TopicInvalid),
        _ => Some(Code::Unspecified),
    };
    if let Some(code) = refused {
        return Err(WireError::Refused(code));
    }
    let said = ack.properties.as_ref();
    let keep_alive = said
        .and_then(|p| p.server_keep_alive)
        .unwrap_or(options.keep_alive_s);
    Ok(Accepted {
        session_present: ack.session_present,
        receive_max: said.and_then(|p| p.receive_max).unwrap_or(u16::MAX),
        keep_alive: Duration::from_secs(keep_alive.max(2).into()),
    })
}

fn qos(n: u8) -> QoS {
    if n == 0 {
        QoS::AtMostOnce
    } else {
        QoS::AtLeastOnce
    }
}

impl Inlet {
    /// Reads what there is; an error at the end of the stream. Cancel-safe.
    pub async fn fill(&mut self) -> Result<(), WireError> {
        // Small: most nodes are idle, and a large packet makes the codec reserve what it needs.
        self.buffer.reserve(4096);
        match self.socket.read_buf(&mut self.buffer).await? {
            0 => Err(WireError::Ended),
            _ => Ok(()),
        }
    }

    fn packet(&mut self) -> Result<Option<Packet>, WireError> {
        match self.codec.decode(&mut self.buffer) {
            Ok(packet) => Ok(packet),
            Err(CodecError::PayloadSizeLimitExceeded { pkt_size, max }) => Err(
                WireError::Malformed(format!("packet of {pkt_size} bytes; the largest is {max}")),
            ),
            Err(e) => Err(WireError::Malformed(e.to_string())),
        }
    }

    /// The next whole packet that was read.
    pub fn next(&mut self) -> Result<Option<Incoming>, WireError> {
        let Some(packet) = self.packet()? else {
            if self.buffer.is_empty() {
                // Gives back a buffer that a large packet has grown.
                self.buffer = BytesMut::new();
            }
            return Ok(None);
        };
        Ok(Some(match packet {
            Packet::Publish(p) => Incoming::Message {
                pkid: p.pkid,
                message: Message {
                    topic: String::from_utf8(p.topic.to_vec())
                        .map_err(|_| WireError::Malformed("topic is not UTF-8".into()))?,
                    // A copy: a slice would keep the whole read buffer alive behind a few bytes.
                    payload: Bytes::copy_from_slice(&p.payload),
                    retain: p.retain,
                    qos: p.qos as u8,
                },
            },
            Packet::PubAck(ack) => Incoming::PubAck {
                pkid: ack.pkid,
                refusal: puback_refusal(&ack),
            },
            Packet::SubAck(ack) => {
                let said = ack.properties.and_then(|p| p.reason_string);
                let refusal =
                    |code: &SubscribeReasonCode| suback_code(code).map(|code| (code, said.clone()));
                Incoming::SubAck {
                    pkid: ack.pkid,
                    refusals: ack.return_codes.iter().map(refusal).collect(),
                }
            }
            Packet::UnsubAck(ack) => Incoming::UnsubAck { pkid: ack.pkid },
            Packet::PingResp(_) => Incoming::Pong,
            Packet::Disconnect(d) => {
                let said = d.properties.and_then(|p| p.reason_string);
                let code = format!("{:?}", d.reason_code);
                return Err(WireError::Disconnected(said.unwrap_or(code)));
            }
            other => return Err(WireError::Malformed(format!("unexpected {other:?}"))),
        }))
    }
}

fn puback_refusal(ack: &PubAck) -> Refusal {
    use PubAckReason as R;
    let code = match ack.reason {
        R::Success | R::NoMatchingSubscribers => return None,
        R::NotAuthorized => Code::NotAuthorized,
        R::TopicNameInvalid => Code::TopicInvalid,
        R::QuotaExceeded => Code::QuotaExceeded,
        R::PayloadFormatInvalid => Code::PayloadFormatInvalid,
        R::UnspecifiedError | R::ImplementationSpecificError | R::PacketIdentifierInUse => {
            Code::Unspecified
        }
    };
    let said = ack
        .properties
        .as_ref()
        .and_then(|p| p.reason_string.clone());
    Some((code, said))
}

fn suback_code(code: &SubscribeReasonCode) -> Option<Code> {
    use SubscribeReasonCode as R;
    match code {
        R::Success(_) => None,
        R::NotAuthorized => Some(Code::NotAuthorized),
        R::TopicFilterInvalid
        | R::SharedSubscriptionsNotSupported
        | R::WildcardSubscriptionsNotSupported => Some(Code::TopicInvalid),
        R::QuotaExceeded => Some(Code::QuotaExceeded),
        _ => Some(Code::Unspecified),
    }
}

impl Outlet {
    fn put(&mut self, packet: Packet) -> Result<(), WireError> {
        self.codec
            .encode(packet, &mut self.buffer)
            .map_err(|e| WireError::Malformed(e.to_string()))
    }

    pub fn publish(&mut self, pkid: u16, message: Message) -> Result<(), WireError> {
        self.put(Packet::Publish(Publish {
            dup: false,
            qos: qos(message.qos),
            retain: message.retain,
            topic: Bytes::from(message.topic),
            pkid,
            payload: message.payload,
            properties: None,
        }))
    }

    pub fn subscribe(&mut self, pkid: u16, filters: &[String]) -> Result<(), WireError> {
        let filters = filters
            .iter()
            .map(|f| Filter::new(f.clone(), QoS::AtLeastOnce));
        let mut packet = Subscribe::new_many(filters, None);
        packet.pkid = pkid;
        self.put(Packet::Subscribe(packet))
    }

    pub fn unsubscribe(&mut self, pkid: u16, filters: Vec<String>) -> Result<(), WireError> {
        self.put(Packet::Unsubscribe(Unsubscribe {
            pkid,
            filters,
            properties: None,
        }))
    }

    pub fn ack(&mut self, pkid: u16) -> Result<(), WireError> {
        self.put(Packet::PubAck(PubAck::new(pkid, None)))
    }

    pub fn ping(&mut self) -> Result<(), WireError> {
        self.put(Packet::PingReq(PingReq))
    }

    pub fn disconnect(&mut self) -> Result<(), WireError> {
        self.put(Packet::Disconnect(Disconnect::new(
            DisconnectReasonCode::NormalDisconnection,
        )))
    }

    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Bytes that the socket has not taken yet.
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Writes what the socket takes. Cancel-safe.
    pub async fn write(&mut self) -> Result<(), WireError> {
        match self.socket.write_buf(&mut self.buffer).await? {
            0 => Err(WireError::Ended),
            _ => {
                if self.buffer.is_empty() {
                    self.buffer = BytesMut::new();
                }
                Ok(())
            }
        }
    }
}
