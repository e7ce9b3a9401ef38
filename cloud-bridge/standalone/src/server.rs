//! The server as a whole: opens what it keeps, serves, runs the controllers, stops.

use crate::auth::Tokens;
use crate::config::Config;
use crate::ops::Api;
use crate::registry::Registry;
use crate::schema::openapi::Documents;
use crate::store::Store;
use crate::{controllers, http, pki};
use anyhow::Context;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A server that is ready to serve: its database is loaded, its certificates and kubeconfig
/// are on disk. Connections to the listener are answered once it runs.
pub struct Server {
    api: Arc<Api>,
    config: Config,
    listener: TcpListener,
    tls: TlsAcceptor,
    kubeconfig: PathBuf,
    url: String,
}

/// [`Server::open`] and [`Server::run`] in one.
pub async fn run(
    config: Config,
    listener: TcpListener,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    Server::open(config, listener, stop).await?.run().await
}

impl Server {
    pub async fn open(
        config: Config,
        listener: TcpListener,
        stop: CancellationToken,
    ) -> anyhow::Result<Server> {
        let address = listener
            .local_addr()
            .context("the listener has no address")?;
        let mut sans = config.sans.clone();
        if !address.ip().is_unspecified() {
            sans.push(address.ip().to_string());
        }
        let dir = config.data_dir.clone();
        let (store, pki, tokens) = tokio::task::spawn_blocking(move || {
            let store = Store::open(&dir)?;
            restrict(&dir)?;
            let pki = pki::open(&dir.join("pki"), &sans)?;
            let tokens = Tokens::open(&dir.join("pki/token.key"))?;
            anyhow::Ok((store, pki, tokens))
        })
        .await
        .context("opening was interrupted")??;
        let host = match address.ip().is_unspecified() {
            true => "127.0.0.1".to_owned(),
            false if address.is_ipv6() => format!("[{}]", address.ip()),
            false => address.ip().to_string(),
        };
        let url = format!("https://{host}:{}", address.port());
        let kubeconfig = config.kubeconfig_path();
        if let Some(parent) = kubeconfig.parent() {
            std::fs::create_dir_all(parent)
                .with_context(|| format!("cannot create {}", parent.display()))?;
        }
        let text = pki::kubeconfig(&url, &pki.ca, &pki.admin);
        pki::write_private(&kubeconfig, text.as_bytes())?;
        let ca = pki.ca.clone();
        let tls = acceptor(pki)?;
        let api = Arc::new(Api {
            store,
            registry: Registry::new(),
            documents: Documents::default(),
            tokens,
            ca,
            refresh: tokio::sync::Mutex::new(()),
            stop,
        });
        api.refresh_custom().await?;
        controllers::bootstrap(&api).await?;
        Ok(Server {
            api,
            config,
            listener,
            tls,
            kubeconfig,
            url,
        })
    }

    /// `https://127.0.0.1:6443`
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where the administrator's kubeconfig was written.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Serves until the token given to [`Server::open`] is cancelled.
    pub async fn run(self) -> anyhow::Result<()> {
        tracing::info!("Kubernetes API on {}", self.url);
        let tasks = TaskTracker::new();
        controllers::start(&self.api, &self.config, &tasks);
        tasks.close();
        http::serve(self.api.clone(), self.listener, self.tls).await;
        tasks.wait().await;
        let store = self.api.store.clone();
        tokio::task::spawn_blocking(move || store.close())
            .await
            .context("closing the store was interrupted")
    }
}

/// The data folder holds secrets in the clear.
fn restrict(dir: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
        .with_context(|| format!("cannot make {} private", dir.display()))
}

fn acceptor(pki: pki::Pki) -> anyhow::Result<TlsAcceptor> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    for certificate in pki.client_roots {
        roots.add(certificate).context("the CA cannot be used")?;
    }
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .context("the CA cannot verify clients")?;
    let mut tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("TLS versions")?
        .with_client_cert_verifier(clients)
        .with_single_cert(pki.serving, pki.serving_key)
        .context("the serving certificate cannot be used")?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(tls)))
}
