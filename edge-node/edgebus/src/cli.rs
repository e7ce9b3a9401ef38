//! The command line, as one table of contents: what a newcomer reads with `--help`.

use crate::paths;
use clap::{Args, Parser, Subcommand, ValueEnum};
use edgebus_bus::ROOT;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Kubernetes for gateways and devices, over one MQTT bus.
#[derive(Parser)]
#[command(
    name = "edgebus",
    version,
    about,
    propagate_version = true,
    max_term_width = 110,
    after_help = "First try:  edgebus demo\nA gateway:  edgebus join --server HOST:10350 --token-file FILE && edgebus node\n\nExit codes: 0 done, also where you said no; 1 it failed and may work another time;\n            64 wrong usage or configuration: it will not work until that is changed."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// See it all work on this machine: control plane, cloud-bridge, an edge node and a Modbus device
    #[cfg(all(feature = "edge", feature = "cloud"))]
    Demo(DemoArgs),

    /// Run this machine as an edge node: the broker and every unit, supervised
    #[cfg(feature = "edge")]
    Node(NodeArgs),
    /// Enrol this machine at a cloud-bridge with a bootstrap token
    #[cfg(feature = "edge")]
    Join(JoinArgs),
    /// Forget the enrolment of this machine
    #[cfg(feature = "edge")]
    Reset(ResetArgs),
    /// Show what is on this node's bus: devices, units, mappers, link, node, pods, configmaps, …
    Get(GetArgs),
    /// Print messages as they pass on this node's bus
    Sub(SubArgs),
    /// Publish one message on this node's bus
    Pub(PubArgs),
    /// Say what a topic carries, who writes and reads it, and what survives
    Explain {
        /// A topic, a filter or a word; without it the whole table as Markdown
        topic: Option<String>,
    },

    /// Run the cloud side: Kubernetes objects to edge nodes and their status back
    #[cfg(feature = "cloud")]
    CloudBridge(BridgeArgs),
    /// Run an embedded Kubernetes API on SQLite, for a first try, tests and gateways without a cluster
    #[cfg(feature = "cloud")]
    Standalone(StandaloneArgs),
    /// Make, list and delete bootstrap tokens for `edgebus join`
    #[cfg(feature = "cloud")]
    #[command(subcommand)]
    Token(TokenCommand),

    /// List the nodes that have enrolled, shut one out, or forget one
    #[cfg(feature = "cloud")]
    #[command(subcommand)]
    Nodes(NodesCommand),

    /// Print a completion script for your shell
    Completion {
        /// bash, zsh, fish, …
        shell: clap_complete::Shell,
    },

    #[cfg(feature = "edge")]
    #[command(flatten)]
    Unit(UnitCommand),
}

/// Parts of a node, started by `edgebus node`.
#[cfg(feature = "edge")]
#[derive(Subcommand)]
pub enum UnitCommand {
    /// The EventBus (started by `edgebus node`)
    #[command(hide = true)]
    Broker(BrokerArgs),
    /// The edge end of the cloud link (started by `edgebus node`)
    #[command(hide = true)]
    Link(Rest),
    /// The light kubelet (started by `edgebus node`)
    #[command(hide = true)]
    Edged(Rest),
    /// Device twins (started by `edgebus node`)
    #[command(hide = true)]
    Devicetwin(Rest),
    /// The Modbus mapper (started by `edgebus node` when it stands in mappers.d/)
    #[command(hide = true)]
    MapperModbus(Rest),
    /// The virtual mapper (started by `edgebus node` when it stands in mappers.d/)
    #[command(hide = true)]
    MapperVirtual(Rest),
}

#[cfg(feature = "edge")]
impl UnitCommand {
    /// The unit's name and arguments, if it gets its identity on standard input.
    pub fn waits_for_welcome(&self) -> Option<(&'static str, &Rest)> {
        match self {
            Self::Broker(_) => None,
            Self::Link(rest) => Some(("link", rest)),
            Self::Edged(rest) => Some(("edged", rest)),
            Self::Devicetwin(rest) => Some(("devicetwin", rest)),
            Self::MapperModbus(rest) => Some(("mapper-modbus", rest)),
            Self::MapperVirtual(rest) => Some(("mapper-virtual", rest)),
        }
    }
}

#[cfg(feature = "edge")]
#[derive(Args)]
pub struct BrokerArgs {
    /// Folder of its store
    #[arg(long)]
    pub data_dir: PathBuf,
    /// Folder of its sockets
    #[arg(long)]
    pub run_dir: PathBuf,
    /// Where MQTT over TCP listens; port 0 = any free one
    #[arg(long, default_value = "127.0.0.1:1883")]
    pub tcp: SocketAddr,
    /// Admit clients without credentials on TCP as role `app`
    #[arg(long)]
    pub anonymous: bool,
}

/// Arguments that a unit reads itself.
#[cfg(feature = "edge")]
#[derive(Args)]
pub struct Rest {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<String>,
}

/// Which node's bus.
#[derive(Args, Clone)]
pub struct Visit {
    /// Folder of the node's sockets
    #[arg(long, env = "EDGEBUS_RUN_DIR", default_value_os_t = paths::run_dir(), value_name = "FOLDER")]
    pub run_dir: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Table,
    Json,
    Yaml,
}

#[derive(Args)]
pub struct GetArgs {
    /// devices, units, mappers, link, node, all, or a Kubernetes kind that is mirrored here
    #[arg(default_value = "devices")]
    pub kind: String,
    /// Only this one
    pub name: Option<String>,
    /// Only this namespace
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// How to print it
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Output,
    #[command(flatten)]
    pub visit: Visit,
}

#[derive(Args)]
pub struct SubArgs {
    /// MQTT topic filters; quote those that start with `$`
    #[arg(default_values_t = [format!("{ROOT}/#")])]
    pub filter: Vec<String>,
    /// Print what is retained now, and end
    #[arg(long)]
    pub retained_only: bool,
    /// End after so many messages
    #[arg(short = 'C', long, value_name = "N")]
    pub count: Option<u64>,
    /// Payloads only, without their topics
    #[arg(short, long)]
    pub quiet: bool,
    /// Spread JSON over lines
    #[arg(short, long)]
    pub pretty: bool,
    #[command(flatten)]
    pub visit: Visit,
}

#[derive(Args)]
pub struct PubArgs {
    /// The topic: `app/…`, `edge/v1/twin/NAMESPACE/NAME/set`, `$hw/events/device/…`
    pub topic: String,
    /// The payload; none clears a retained topic
    pub payload: Option<String>,
    /// Read the payload from a file, `-` for standard input
    #[arg(short, long)]
    pub file: Option<PathBuf>,
    /// Retain it (`app/…` only; elsewhere the topic decides)
    #[arg(short, long)]
    pub retain: bool,
    #[command(flatten)]
    pub visit: Visit,
}

#[cfg(feature = "edge")]
#[derive(Args)]
pub struct NodeArgs {
    /// What must survive a reboot
    #[arg(long, env = "EDGEBUS_DATA_DIR", default_value_os_t = paths::data_dir(), value_name = "FOLDER")]
    pub data_dir: PathBuf,
    /// Sockets and tokens: a tmpfs where there is one
    #[arg(long, env = "EDGEBUS_RUN_DIR", default_value_os_t = paths::run_dir(), value_name = "FOLDER")]
    pub run_dir: PathBuf,
    /// Executables dropped here are mappers
    #[arg(long, env = "EDGEBUS_MAPPERS_DIR", default_value_os_t = paths::mappers_dir(), value_name = "FOLDER")]
    pub mappers_dir: PathBuf,
    /// Name of the node: the enrolled one, else the host's
    #[arg(long, env = "EDGEBUS_NODE", value_name = "NAME")]
    pub node: Option<String>,
    /// Where MQTT clients on this machine connect; port 0 = any free one
    #[arg(long, default_value = "127.0.0.1:1883")]
    pub mqtt: SocketAddr,
    /// Admit MQTT clients without credentials on that port: to `app/#` and twin topics only
    #[arg(long)]
    pub anonymous: bool,
}

#[cfg(feature = "edge")]
#[derive(Args)]
pub struct JoinArgs {
    /// Address of the cloud-bridge, HOST:PORT
    #[arg(long)]
    pub server: String,
    /// File that holds the token; `-` for standard input. Tokens never stand on a command line
    #[arg(long, default_value = "-", value_name = "FILE")]
    pub token_file: PathBuf,
    /// Name of the node: the host's unless said
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Take another cluster than the one this node belonged to, and its emptiness, as true
    #[arg(long)]
    pub accept_cluster: bool,
    #[arg(long, env = "EDGEBUS_DATA_DIR", default_value_os_t = paths::data_dir(), value_name = "FOLDER")]
    pub data_dir: PathBuf,
}

#[cfg(feature = "edge")]
#[derive(Args)]
pub struct ResetArgs {
    #[arg(long, env = "EDGEBUS_DATA_DIR", default_value_os_t = paths::data_dir(), value_name = "FOLDER")]
    pub data_dir: PathBuf,
    /// Do it without asking
    #[arg(short, long)]
    pub yes: bool,
}

#[cfg(feature = "cloud")]
#[derive(Args)]
pub struct BridgeArgs {
    /// Cluster to serve; without it the service account of the pod it runs in
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Where nodes dial in and enrol
    #[arg(long, default_value = "0.0.0.0:10350")]
    pub listen: SocketAddr,
    /// Names and addresses by which nodes reach it: its certificate is for these (repeatable)
    #[arg(long = "advertise", value_name = "HOST", default_values_t = ["localhost".to_owned(), "127.0.0.1".to_owned()])]
    pub advertise: Vec<String>,
    /// Where /healthz, /readyz and /metrics answer; nowhere unless said
    #[arg(long, value_name = "ADDRESS")]
    pub health: Option<SocketAddr>,
    /// Namespace for the enrolment CA, tokens and records
    #[arg(long, default_value = "edgebus-system")]
    pub namespace: String,
    /// Namespaces whose Secrets may go to nodes; without it all (repeatable)
    #[arg(long = "secret-namespace", value_name = "NAMESPACE")]
    pub secret_namespaces: Vec<String>,
    /// Namespaces whose ConfigMaps, ServiceAccounts and devices may go to nodes; without it all (repeatable)
    #[arg(long = "object-namespace", value_name = "NAMESPACE")]
    pub object_namespaces: Vec<String>,
    /// Life of the certificates it issues, in seconds
    #[arg(long, hide = true, value_name = "S")]
    pub cert_life_s: Option<u64>,
}

#[cfg(feature = "cloud")]
#[derive(Args)]
pub struct StandaloneArgs {
    /// Folder of the database and of its certificates
    #[arg(long, default_value_os_t = paths::data_dir().join("standalone"), value_name = "FOLDER")]
    pub data_dir: PathBuf,
    /// Where the API answers; port 0 = any free one
    #[arg(long, default_value = "127.0.0.1:6443")]
    pub listen: SocketAddr,
    /// Where to write the administrator's kubeconfig [default: DATA_DIR/kubeconfig]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Further names and addresses for its certificate (repeatable)
    #[arg(long = "san", value_name = "HOST")]
    pub sans: Vec<String>,
    /// Seconds after which a silent node becomes NotReady
    #[arg(long, default_value_t = 40, value_name = "S")]
    pub node_grace_s: u64,
}

#[cfg(feature = "cloud")]
#[derive(Args, Clone)]
pub struct Cluster {
    /// Cluster of the cloud-bridge
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of the cloud-bridge
    #[arg(long, default_value = "edgebus-system")]
    pub namespace: String,
}

#[cfg(feature = "cloud")]
#[derive(Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it
    Create {
        #[command(flatten)]
        cluster: Cluster,
        /// Only for this node; needed to enrol a name again
        #[arg(long)]
        node: Option<String>,
        /// Hours until it ends
        #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=87_600))]
        hours: u32,
        /// How many nodes may use it
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        uses: u32,
    },
    /// List tokens (never their secrets)
    List {
        #[command(flatten)]
        cluster: Cluster,
    },
    /// Delete a token
    Delete {
        #[command(flatten)]
        cluster: Cluster,
        /// Its id
        id: String,
    },
}

#[cfg(feature = "cloud")]
#[derive(Subcommand)]
pub enum NodesCommand {
    /// List enrolled nodes and how long their certificates last
    List {
        #[command(flatten)]
        cluster: Cluster,
    },
    /// Shut a node out, at once and for good: no token admits its name until it is forgotten
    Revoke {
        #[command(flatten)]
        cluster: Cluster,
        /// Its name
        node: String,
    },
    /// Forget that a node ever enrolled: its certificates end, its name is free again
    Forget {
        #[command(flatten)]
        cluster: Cluster,
        /// Its name
        node: String,
    },
}

#[cfg(all(feature = "edge", feature = "cloud"))]
#[derive(Args)]
pub struct DemoArgs {
    /// Keep everything here instead of in a temporary folder
    #[arg(long, value_name = "FOLDER")]
    pub dir: Option<PathBuf>,
    /// Where the Kubernetes API answers; port 0 = any free one
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Where MQTT clients connect; port 0 = any free one
    #[arg(long, default_value = "127.0.0.1:0")]
    pub mqtt: SocketAddr,
    /// Show that it works, and end
    #[arg(long)]
    pub once: bool,
}
