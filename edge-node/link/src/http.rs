//! One HTTP/1.1 request and its answer over a stream that exists already: all that joining needs.

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Largest answer that is read.
const ANSWER_BYTES: usize = 256 << 10;

#[derive(Debug, Error)]
pub enum HttpError {
    #[error("the connection broke")]
    Io(#[from] std::io::Error),
    #[error("the answer is longer than {ANSWER_BYTES} bytes")]
    TooLong,
    #[error("the answer is not HTTP: {0}")]
    NotHttp(&'static str),
}

/// Posts a JSON body; status and body of the answer.
pub async fn post_json(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    host: &str,
    path: &str,
    body: &[u8],
) -> Result<(u16, Vec<u8>), HttpError> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    loop {
        if let Some(done) = parse(&answer, false)? {
            return Ok(done);
        }
        let mut chunk = [0u8; 4096];
        let read = match stream.read(&mut chunk).await {
            Ok(read) => read,
            // A peer that closes without saying so in TLS: what came must be whole by itself.
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => 0,
            Err(e) => return Err(e.into()),
        };
        if read == 0 {
            return parse(&answer, true)?.ok_or(HttpError::NotHttp("it ends too early"));
        }
        answer.extend_from_slice(&chunk[..read]);
        if answer.len() > ANSWER_BYTES {
            return Err(HttpError::TooLong);
        }
    }
}

/// The whole answer, or None if more must be read.
fn parse(answer: &[u8], ended: bool) -> Result<Option<(u16, Vec<u8>)>, HttpError> {
    let Some(at) = answer.windows(4).position(|w| w == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&answer[..at]).map_err(|_| HttpError::NotHttp("its head"))?;
    let body = &answer[at + 4..];
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    let code = status
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.get(2..5))
        .and_then(|code| code.parse().ok())
        .ok_or(HttpError::NotHttp("its status line"))?;
    let (mut length, mut chunked) = (None, false);
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(HttpError::NotHttp("a header"))?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            let n: usize = value
                .parse()
                .map_err(|_| HttpError::NotHttp("its content length"))?;
            length = Some(n);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            chunked = value.to_ascii_lowercase().ends_with("chunked");
        }
    }
    if chunked {
        return Ok(dechunk(body)?.map(|body| (code, body)));
    }
    match length {
        Some(n) if n > ANSWER_BYTES => Err(HttpError::TooLong),
        Some(n) if body.len() >= n => Ok(Some((code, body[..n].to_vec()))),
        None if ended => Ok(Some((code, body.to_vec()))),
        _ => Ok(None),
    }
}

fn dechunk(mut rest: &[u8]) -> Result<Option<Vec<u8>>, HttpError> {
    let mut out = Vec::new();
    loop {
        let Some(at) = rest.windows(2).position(|w| w == b"\r\n") else {
            return Ok(None);
        };
        let size = std::str::from_utf8(&rest[..at])
            .ok()
            .and_then(|line| usize::from_str_radix(line.split(';').next()?.trim(), 16).ok())
            .filter(|size| *size <= ANSWER_BYTES)
            .ok_or(HttpError::NotHttp("the size of a chunk"))?;
        rest = &rest[at + 2..];
        if size == 0 {
            return Ok(Some(out));
        }
        let Some(chunk) = rest.get(..size + 2) else {
            return Ok(None);
        };
        out.extend_from_slice(&chunk[..size]);
        rest = &rest[size + 2..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Option<(u16, Vec<u8>)> {
        parse(text.as_bytes(), false).unwrap()
    }

    #[test]
    fn answers_are_read_by_length_by_chunks_or_to_the_end() {
        let by_length = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokrest";
        assert_eq!(whole(by_length), Some((200, b"ok".to_vec())));
        let chunks =
            "HTTP/1.1 403 No\r\ntransfer-encoding: chunked\r\n\r\n2;x\r\nok\r\n1\r\n!\r\n0\r\n\r\n";
        assert_eq!(whole(chunks), Some((403, b"ok!".to_vec())));
        for end in 1..chunks.len() - 2 {
            assert_eq!(
                parse(&chunks.as_bytes()[..end], false).unwrap(),
                None,
                "{end}"
            );
        }
        let to_end = "HTTP/1.1 200 OK\r\n\r\nok";
        assert_eq!(whole(to_end), None);
        assert_eq!(
            parse(to_end.as_bytes(), true).unwrap(),
            Some((200, b"ok".to_vec()))
        );
    }

    #[test]
    fn what_is_no_http_is_an_error() {
        for text in [
            "SSH-2.0\r\n\r\n",
            "HTTP/1.1 abc\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffff\r\n",
        ] {
            assert!(parse(text.as_bytes(), false).is_err(), "{text}");
        }
    }
}
