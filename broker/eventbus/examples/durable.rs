//! How many durable QoS 1 publishes a second a broker takes:
//! `durable TCP_ADDRESS USER TOKEN CLIENTS MESSAGES`. Each client keeps 32 messages on their way;
//! the topics are the user's own retained state.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::{Bytes, BytesMut};
use edgebus_bus::{Name, Topic};
use edgebus_eventbus::codec::{
    self, Connect, Packet, Properties, Publish, QoS, ReasonCode, Version,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const ON_THEIR_WAY: usize = 32;

fn topic(client: usize, n: usize) -> anyhow::Result<String> {
    let topic = Topic::Obj {
        kind: Name::new("device")?,
        ns: "bench".parse()?,
        name: Name::new(format!("c{client}-{n}"))?,
    };
    Ok(topic.to_string())
}

async fn next(stream: &mut TcpStream, buffer: &mut BytesMut) -> anyhow::Result<Packet> {
    loop {
        if let Some(packet) = codec::decode(buffer, Some(Version::V5), usize::MAX)? {
            return Ok(packet);
        }
        if stream.read_buf(buffer).await? == 0 {
            bail!("the broker closed the connection");
        }
    }
}

async fn publish(
    at: String,
    user: String,
    token: String,
    client: usize,
    messages: usize,
) -> anyhow::Result<Vec<Duration>> {
    let mut stream = TcpStream::connect(&at).await?;
    stream.set_nodelay(true)?;
    let mut buffer = BytesMut::new();
    let mut out = BytesMut::new();
    let connect = Packet::Connect(Box::new(Connect {
        version: Version::V5,
        clean_start: true,
        keep_alive: 0,
        properties: Properties::NONE,
        client_id: format!("{user}.bench{client}"),
        will: None,
        username: Some(user),
        password: Some(token.into()),
    }));
    codec::encode(&connect, Version::V5, &mut out)?;
    stream.write_all(&out).await?;
    match next(&mut stream, &mut buffer).await? {
        Packet::ConnAck(ack) if ack.reason == ReasonCode::Success => {}
        other => bail!("not admitted: {other:?}"),
    }
    let mut begun = vec![Instant::now(); messages + 1];
    let mut took = Vec::with_capacity(messages);
    let mut sent = 0;
    while took.len() < messages {
        out.clear();
        while sent < messages && sent - took.len() < ON_THEIR_WAY {
            sent += 1;
            begun[sent] = Instant::now();
            let packet = Packet::Publish(Publish {
                qos: QoS::AtLeastOnce,
                retain: true,
                topic: topic(client, sent % 100)?,
                packet_id: u16::try_from(sent % 60_000 + 1)?,
                payload: Bytes::from(vec![b'x'; 200]),
                ..Publish::default()
            });
            codec::encode(&packet, Version::V5, &mut out)?;
        }
        stream.write_all(&out).await?;
        match next(&mut stream, &mut buffer).await? {
            Packet::PubAck(ack) if !ack.reason.is_error() => {
                took.push(begun[took.len() + 1].elapsed());
            }
            other => bail!("not acknowledged: {other:?}"),
        }
    }
    Ok(took)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [at, user, token, clients, messages] = &words[..] else {
        bail!("usage: durable TCP_ADDRESS USER TOKEN CLIENTS MESSAGES");
    };
    let (clients, messages): (usize, usize) = (clients.parse()?, messages.parse()?);
    let begun = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|n| {
            tokio::spawn(publish(
                at.clone(),
                user.clone(),
                token.clone(),
                n,
                messages,
            ))
        })
        .collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await.context("a client panicked")??);
    }
    let seconds = begun.elapsed().as_secs_f64();
    took.sort_unstable();
    let at = |part: usize| took[(took.len() - 1) * part / 1000].as_secs_f64() * 1000.0;
    println!(
        "{:.0} durable publishes/s, acknowledged in p50 {:.2} ms, p99 {:.2} ms",
        took.len() as f64 / seconds,
        at(500),
        at(990)
    );
    Ok(())
}
