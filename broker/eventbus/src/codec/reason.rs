//! MQTT 5 reason codes by their names in the specification (2.4), which packet may carry
//! which, and their 3.1.1 counterparts.

use super::packet::PacketType;

macro_rules! reason_codes {
    ($($value:literal $name:ident $text:literal [$($packet:ident)*];)*) => {
        /// A reason code. Where the specification gives one value several names
        /// (0x00, 0x01, 0x02) the constants below carry the others.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum ReasonCode { $($name = $value,)* }

        impl ReasonCode {
            /// Every code there is.
            pub const ALL: &'static [ReasonCode] = &[$(ReasonCode::$name,)*];

            /// The code with this value, if there is one.
            pub fn from_u8(value: u8) -> Option<Self> {
                match value { $($value => Some(Self::$name),)* _ => None }
            }

            /// Its name as the specification writes it.
            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Whether the specification lists it for this packet.
            pub fn allowed_in(self, packet: PacketType) -> bool {
                match self { $(Self::$name => matches!(packet, $(PacketType::$packet)|*),)* }
            }
        }
    };
}

reason_codes! {
    0x00 Success "Success" [ConnAck PubAck PubRec PubRel PubComp SubAck UnsubAck Disconnect Auth];
    0x01 GrantedQoS1 "Granted QoS 1" [SubAck];
    0x02 GrantedQoS2 "Granted QoS 2" [SubAck];
    0x04 DisconnectWithWill "Disconnect with Will Message" [Disconnect];
    0x10 NoMatchingSubscribers "No matching subscribers" [PubAck PubRec];
    0x11 NoSubscriptionExisted "No subscription existed" [UnsubAck];
    0x18 ContinueAuthentication "Continue authentication" [Auth];
    0x19 ReAuthenticate "Re-authenticate" [Auth];
    0x80 UnspecifiedError "Unspecified error" [ConnAck PubAck PubRec SubAck UnsubAck Disconnect];
    0x81 MalformedPacket "Malformed Packet" [ConnAck Disconnect];
    0x82 ProtocolError "Protocol Error" [ConnAck Disconnect];
    0x83 ImplementationSpecificError "Implementation specific error" [ConnAck PubAck PubRec SubAck UnsubAck Disconnect];
    0x84 UnsupportedProtocolVersion "Unsupported Protocol Version" [ConnAck];
    0x85 ClientIdentifierNotValid "Client Identifier not valid" [ConnAck];
    0x86 BadUserNameOrPassword "Bad User Name or Password" [ConnAck];
    0x87 NotAuthorized "Not authorized" [ConnAck PubAck PubRec SubAck UnsubAck Disconnect];
    0x88 ServerUnavailable "Server unavailable" [ConnAck];
    0x89 ServerBusy "Server busy" [ConnAck Disconnect];
    0x8A Banned "Banned" [ConnAck];
    0x8B ServerShuttingDown "Server shutting down" [Disconnect];
    0x8C BadAuthenticationMethod "Bad authentication method" [ConnAck Disconnect];
    0x8D KeepAliveTimeout "Keep Alive timeout" [Disconnect];
    0x8E SessionTakenOver "Session taken over" [Disconnect];
    0x8F TopicFilterInvalid "Topic Filter invalid" [SubAck UnsubAck Disconnect];
    0x90 TopicNameInvalid "Topic Name invalid" [ConnAck PubAck PubRec Disconnect];
    0x91 PacketIdentifierInUse "Packet Identifier in use" [PubAck PubRec SubAck UnsubAck];
    0x92 PacketIdentifierNotFound "Packet Identifier not found" [PubRel PubComp];
    0x93 ReceiveMaximumExceeded "Receive Maximum exceeded" [Disconnect];
    0x94 TopicAliasInvalid "Topic Alias invalid" [Disconnect];
    0x95 PacketTooLarge "Packet too large" [ConnAck Disconnect];
    0x96 MessageRateTooHigh "Message rate too high" [Disconnect];
    0x97 QuotaExceeded "Quota exceeded" [ConnAck PubAck PubRec SubAck Disconnect];
    0x98 AdministrativeAction "Administrative action" [Disconnect];
    0x99 PayloadFormatInvalid "Payload format invalid" [ConnAck PubAck PubRec Disconnect];
    0x9A RetainNotSupported "Retain not supported" [ConnAck Disconnect];
    0x9B QoSNotSupported "QoS not supported" [ConnAck Disconnect];
    0x9C UseAnotherServer "Use another server" [ConnAck Disconnect];
    0x9D ServerMoved "Server moved" [ConnAck Disconnect];
    0x9E SharedSubscriptionsNotSupported "Shared Subscriptions not supported" [SubAck Disconnect];
    0x9F ConnectionRateExceeded "Connection rate exceeded" [ConnAck Disconnect];
    0xA0 MaximumConnectTime "Maximum connect time" [Disconnect];
    0xA1 SubscriptionIdentifiersNotSupported "Subscription Identifiers not supported" [SubAck Disconnect];
    0xA2 WildcardSubscriptionsNotSupported "Wildcard Subscriptions not supported" [SubAck Disconnect];
}

impl ReasonCode {
    pub const NORMAL_DISCONNECTION: Self = Self::Success;
    pub const GRANTED_QOS_0: Self = Self::Success;

    /// 0x80 and above mean failure.
    pub fn is_error(self) -> bool {
        self as u8 >= 0x80
    }

    /// The CONNACK return code of 3.1.1 (3.2.2.3) that says it best.
    pub fn to_v4_connack(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::UnsupportedProtocolVersion => 1,
            Self::ClientIdentifierNotValid => 2,
            Self::BadUserNameOrPassword | Self::BadAuthenticationMethod => 4,
            Self::NotAuthorized | Self::Banned => 5,
            _ => 3,
        }
    }

    /// The counterpart of a 3.1.1 CONNACK return code.
    pub fn from_v4_connack(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Success,
            1 => Self::UnsupportedProtocolVersion,
            2 => Self::ClientIdentifierNotValid,
            3 => Self::ServerUnavailable,
            4 => Self::BadUserNameOrPassword,
            5 => Self::NotAuthorized,
            _ => return None,
        })
    }
}
