//! KubeEdge's `pushMethod`: kept and shown to mappers as it is; nothing here acts on it.

use crate::{Object, flex};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

macro_rules! plain {
    ($(#[doc = $about:literal])+ $name:ident { $($(#[$meta:meta])* $field:ident: $type:ty,)* }) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            $(
                $(#[$meta])*
                #[serde(default, skip_serializing_if = "Option::is_none")]
                pub $field: Option<$type>,
            )*
            /// Fields nobody here knows.
            #[serde(flatten)]
            #[schemars(skip)]
            pub extra: Object,
        }
    };
}

plain! {
    /// Where values are pushed besides.
    PushMethod {
        /// To an HTTP server.
        http: PushHttp,
        /// To another MQTT broker.
        mqtt: PushMqtt,
        /// To an OpenTelemetry collector.
        otel: PushOtel,
        /// To a database.
        db_method: DbMethod,
        /// Settings of anomaly detection, free.
        #[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
        anomaly_detection: Object,
    }
}
plain! {
    /// To an HTTP server.
    PushHttp {
        /// Host.
        host_name: String,
        /// Port.
        #[serde(deserialize_with = "flex::int::deserialize")]
        port: i64,
        /// Path.
        request_path: String,
        /// Milliseconds.
        #[serde(deserialize_with = "flex::int::deserialize")]
        timeout: i64,
    }
}
plain! {
    /// To another MQTT broker.
    PushMqtt {
        /// URL of the broker.
        address: String,
        /// Topic.
        topic: String,
        /// QoS.
        #[serde(deserialize_with = "flex::int::deserialize")]
        qos: i64,
        /// Retain flag.
        #[serde(deserialize_with = "flex::boolean::deserialize")]
        retained: bool,
    }
}
plain! {
    /// To an OpenTelemetry collector.
    PushOtel {
        /// URL of the collector.
        #[serde(rename = "endpointURL")]
        endpoint_url: String,
    }
}
plain! {
    /// To a database.
    DbMethod {
        /// InfluxDB 2.
        influxdb2: Influx,
        /// Redis.
        redis: Redis,
        /// TDengine.
        #[serde(rename = "TDEngine")]
        tdengine: TdEngine,
        /// MySQL.
        mysql: MySql,
    }
}
plain! {
    /// InfluxDB 2; its token comes from the environment.
    Influx {
        /// The server.
        influxdb2_client_config: InfluxClient,
        /// The data.
        influxdb2_data_config: InfluxData,
    }
}
plain! {
    /// An InfluxDB server.
    InfluxClient {
        /// URL.
        url: String,
        /// Organisation.
        org: String,
        /// Bucket.
        bucket: String,
    }
}
plain! {
    /// How InfluxDB stores a value.
    InfluxData {
        /// Measurement.
        measurement: String,
        /// Tags.
        tag: BTreeMap<String, String>,
        /// Field key.
        field_key: String,
    }
}
plain! {
    /// Redis; its password comes from the environment.
    Redis {
        /// The server.
        redis_client_config: RedisClient,
    }
}
plain! {
    /// A Redis server.
    RedisClient {
        /// Address.
        addr: String,
        /// Database.
        #[serde(deserialize_with = "flex::int::deserialize")]
        db: i64,
        /// Connections.
        #[serde(deserialize_with = "flex::int::deserialize")]
        poolsize: i64,
        /// Idle connections kept.
        #[serde(deserialize_with = "flex::int::deserialize")]
        min_idle_conns: i64,
    }
}
plain! {
    /// TDengine; its password comes from the environment.
    TdEngine {
        /// The server.
        #[serde(rename = "TDEngineClientConfig")]
        client: TdEngineClient,
    }
}
plain! {
    /// A TDengine server.
    TdEngineClient {
        /// Address.
        addr: String,
        /// Database.
        db_name: String,
    }
}
plain! {
    /// MySQL; its password comes from the environment.
    MySql {
        /// The server.
        mysql_client_config: MySqlClient,
    }
}
plain! {
    /// A MySQL server.
    MySqlClient {
        /// Address.
        addr: String,
        /// Database.
        database: String,
        /// User.
        user_name: String,
    }
}
