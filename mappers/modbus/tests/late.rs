//! A reply that comes late is never taken for another question's, on either transport. The slaves
//! here answer strictly in order, as devices do, and each register holds its own address: any value
//! that is not its address was somebody else's answer.

use edgebus_bus::DeviceId;
use edgebus_bus::payload::{Object, PropertyConfig};
use edgebus_mapper_modbus::Modbus;
use edgebus_mapper_modbus::config::{Dev, Point};
use edgebus_mapper_modbus::line::Line;
use edgebus_mapper_modbus::rtu::Quiet;
use edgebus_mapper_sdk::{LineError, Protocol};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpListener;

const TIMEOUT_MS: u64 = 40;

fn object(value: Value) -> Object {
    value.as_object().cloned().unwrap()
}

fn dev(config: Value) -> Dev {
    Modbus
        .device(&DeviceId::new("d", "p").unwrap(), &object(config))
        .unwrap()
}

fn point(dev: &Dev, address: u16) -> Point {
    let property: PropertyConfig =
        serde_json::from_value(json!({"name": "p", "type": "INT"})).unwrap();
    Modbus
        .point(
            dev,
            &property,
            &object(json!({"register": "holding", "offset": address})),
        )
        .unwrap()
}

/// CRC-16/MODBUS (Modbus over Serial Line V1.02 §6.2.2).
fn crc(frame: &[u8]) -> [u8; 2] {
    let mut crc = 0xFFFFu16;
    for byte in frame {
        crc ^= u16::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 {
                crc >> 1 ^ 0xA001
            } else {
                crc >> 1
            };
        }
    }
    crc.to_le_bytes()
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Status {
    Answers,
    Refuses,
    Ignores,
}

/// Answers reads with the address itself, the first `late` of them only after `delay`.
async fn slave(mut wire: DuplexStream, late: usize, delay: Duration, status: Status) {
    let mut seen = 0;
    let mut head = [0u8; 2];
    while wire.read_exact(&mut head).await.is_ok() {
        let mut frame = head.to_vec();
        let rest = if head[1] == 0x07 { 2 } else { 6 };
        let mut tail = vec![0u8; rest];
        wire.read_exact(&mut tail).await.unwrap();
        frame.extend(&tail);
        let body = frame.len() - 2;
        assert_eq!(crc(&frame[..body]), frame[body..], "a question was garbled");
        let mut answer = match head[1] {
            0x07 if status == Status::Ignores => continue,
            0x07 if status == Status::Refuses => vec![head[0], 0x87, 1],
            0x07 => vec![head[0], 0x07, 0x5A],
            _ => vec![head[0], head[1], 2, frame[2], frame[3]],
        };
        if seen < late {
            tokio::time::sleep(delay).await;
        }
        seen += 1;
        answer.extend(crc(&answer));
        if wire.write_all(&answer).await.is_err() {
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_serial_reply_is_never_taken_for_another_questions() {
    for status in [Status::Answers, Status::Refuses, Status::Ignores] {
        for delay_percent in [50, 110, 150, 190, 210, 260, 310, 420] {
            for late in [1, 2, 3] {
                let (ours, theirs) = tokio::io::duplex(4096);
                let delay = Duration::from_millis(TIMEOUT_MS * delay_percent / 100);
                let peer = tokio::spawn(slave(theirs, late, delay, status));
                let d = dev(json!({"serialport": "test", "timeout": TIMEOUT_MS, "retries": 0}));
                let mut line = Line::over(ours, Quiet::default());
                let mut good = 0;
                for round in 0u16..40 {
                    let address = 100 + round;
                    match line.read(&d, &[&point(&d, address)]).await {
                        Ok(values) => {
                            let case = format!(
                                "{status:?}, {delay_percent} %, {late} late, round {round}"
                            );
                            assert_eq!(values, [Ok(json!(address))], "{case}");
                            good += 1;
                        }
                        Err(e) => assert!(matches!(e, LineError::Silent(_)), "{e}"),
                    }
                }
                // And it recovers: most of the questions after the trouble are answered.
                assert!(
                    good >= 20,
                    "only {good} of 40: {status:?}, {delay_percent} %, {late} late"
                );
                peer.abort();
            }
        }
    }
}

#[tokio::test]
async fn a_late_tcp_reply_comes_to_nobody_because_its_connection_is_gone() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let mut first = true;
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let delay = std::mem::take(&mut first);
            tokio::spawn(async move {
                let mut question = [0u8; 12];
                while stream.read_exact(&mut question).await.is_ok() {
                    if delay {
                        tokio::time::sleep(Duration::from_millis(TIMEOUT_MS * 3 / 2)).await;
                    }
                    let mut answer = question[..4].to_vec();
                    answer.extend([0, 5, question[6], question[7], 2, question[8], question[9]]);
                    if stream.write_all(&answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    let d = dev(json!({"ip": "127.0.0.1", "port": port, "timeout": TIMEOUT_MS}));
    let mut line = Modbus.open(&d).await.unwrap();
    let error = line.read(&d, &[&point(&d, 1)]).await.unwrap_err();
    assert!(
        matches!(&error, LineError::Lost(why) if why.contains("no answer within 40 ms")),
        "{error}"
    );
    let mut line = Modbus.open(&d).await.unwrap();
    for address in 2..20 {
        assert_eq!(
            line.read(&d, &[&point(&d, address)]).await.unwrap(),
            [Ok(json!(address))]
        );
    }
    server.abort();
}

#[tokio::test(start_paused = true)]
async fn noise_on_a_serial_line_costs_questions_but_yields_no_values() {
    let (ours, mut theirs) = tokio::io::duplex(4096);
    let peer = tokio::spawn(async move {
        let mut question = [0u8; 8];
        let mut n = 0u8;
        while theirs.read(&mut question).await.is_ok_and(|n| n > 0) {
            n = n.wrapping_mul(31).wrapping_add(17);
            let noise: Vec<u8> = (0..n % 23).map(|i| i.wrapping_mul(n)).collect();
            if theirs.write_all(&noise).await.is_err() {
                return;
            }
        }
    });
    let d = dev(json!({"serialport": "test", "timeout": TIMEOUT_MS, "retries": 1}));
    let mut line = Line::over(ours, Quiet::default());
    for address in 0..20 {
        assert!(line.read(&d, &[&point(&d, address)]).await.is_err());
    }
    peer.abort();
}
