//! Where the broker is, and as whom to connect.

use edgebus_bus::unit::Welcome;
use edgebus_bus::{Name, NameError};
use std::fmt;
use std::path::PathBuf;

/// Where the broker listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A unix socket.
    Unix(PathBuf),
    /// `host:port`.
    Tcp(String),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "{}", path.display()),
            Address::Tcp(at) => f.write_str(at),
        }
    }
}

/// All that is needed to be somebody on the bus.
#[derive(Clone)]
pub struct ConnectOptions {
    /// Where the broker is.
    pub address: Address,
    /// Name of the component, which the broker must know it by too: that of its token, or without
    /// one `operator` on the admin socket and `app` on the socket of workloads.
    pub name: Name,
    /// Client id: `{name}` or `{name}.*`.
    pub client_id: String,
    /// Password; none where the kernel vouches for us.
    pub token: Option<String>,
    /// Say `sys/{name}/health`, leave a will, and answer `sys/{name}/ask`. For units, not for
    /// passing visitors such as the command line.
    pub is_unit: bool,
    /// Version of the program, for health.
    pub version: String,
    /// Seconds between pings when nothing else is said.
    pub keep_alive_s: u16,
}

impl ConnectOptions {
    /// A visitor without health: the command line, a test. See [`name`](Self::name).
    pub fn visitor(address: Address, name: Name) -> Self {
        // A visitor's client id is its own, or two of them would take over each other's session.
        let client_id = format!("{name}.{}", crate::random_id());
        Self {
            address,
            name,
            client_id,
            token: None,
            is_unit: false,
            version: env!("CARGO_PKG_VERSION").into(),
            keep_alive_s: 15,
        }
    }

    /// A unit of the node.
    pub fn unit(
        address: Address,
        name: Name,
        token: impl Into<String>,
        version: impl Into<String>,
    ) -> Self {
        Self {
            address,
            client_id: name.to_string(),
            name,
            token: Some(token.into()),
            is_unit: true,
            version: version.into(),
            keep_alive_s: 15,
        }
    }

    /// The same, with a token.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }
}

impl TryFrom<&Welcome> for ConnectOptions {
    type Error = NameError;

    fn try_from(welcome: &Welcome) -> Result<Self, NameError> {
        let address = if welcome.socket.is_empty() {
            Address::Tcp(welcome.tcp.clone())
        } else {
            Address::Unix(PathBuf::from(&welcome.socket))
        };
        Ok(Self::unit(
            address,
            Name::new(&welcome.name)?,
            &welcome.token,
            env!("CARGO_PKG_VERSION"),
        ))
    }
}

/// Secrets stay out of logs.
impl fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectOptions")
            .field("address", &self.address)
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}
