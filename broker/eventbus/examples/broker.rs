//! The broker as a process of its own, for tests and measurements:
//! `broker DATA_DIR RUN_DIR TCP_ADDRESS [anonymous]`, grants on standard input, log on standard
//! error (`RUST_LOG` says how much).

use edgebus_eventbus::{Args, broker_main};
use tracing_subscriber::EnvFilter;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [data, run, tcp, rest @ ..] = &words[..] else {
        anyhow::bail!("usage: broker DATA_DIR RUN_DIR TCP_ADDRESS [anonymous]");
    };
    let mut args = Args::new(data, run);
    args.tcp = Some(tcp.parse()?);
    args.anonymous_tcp = rest.iter().any(|word| word == "anonymous");
    broker_main(args).await
}
