//! Serves the API by itself, for looking at it with kubectl:
//! `cargo run -p edgebus-standalone --example serve -- DIR [ADDRESS]`

use anyhow::Context;
use edgebus_standalone::{Config, Server};
use tokio_util::sync::CancellationToken;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut config = Config::new(arguments.next().context("usage: serve DIR [ADDRESS]")?);
    if let Some(address) = arguments.next() {
        config.listen = address.parse().context("ADDRESS is not IP:PORT")?;
    }
    let listener = tokio::net::TcpListener::bind(config.listen).await?;
    let stop = CancellationToken::new();
    let server = Server::open(config, listener, stop.clone()).await?;
    println!("{} {}", server.url(), server.kubeconfig().display());
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.cancel();
        }
    });
    server.run().await
}
