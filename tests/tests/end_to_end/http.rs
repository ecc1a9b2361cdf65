//! Enough HTTP to check answers to the letter, without any client that might be lenient.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// The port of `http://127.0.0.1:PORT`.
pub(crate) fn port_of(url: &str) -> u16 {
    url.rsplit(':').next().unwrap().parse().unwrap()
}

/// Sends one request to the API and reads its answer; `None` when nobody answers.
pub(crate) fn send(url: &str, method: &str, path: &str, token: Option<&str>, body: Option<&Value>) -> Option<Answer> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port_of(url))).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
    let body = body.map(ToString::to_string);
    let mut request = format!("{method} /api/v1{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    if let Some(token) = token {
        request += &format!("Authorization: Bearer {token}\r\n");
    }
    if let Some(body) = &body {
        request += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    }
    request += "\r\n";
    request += body.as_deref().unwrap_or_default();
    stream.write_all(request.as_bytes()).ok()?;
    read(&mut BufReader::new(stream))
}

fn read(stream: &mut impl BufRead) -> Option<Answer> {
    let mut line = String::new();
    stream.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let status = line.split(' ').nth(1)?.parse().ok()?;
    let headers = headers(stream)?;
    let mut body = Vec::new();
    if headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
        loop {
            line.clear();
            stream.read_line(&mut line).ok()?;
            let size = u64::from_str_radix(line.trim(), 16).ok()?;
            stream.take(size).read_to_end(&mut body).ok()?;
            line.clear();
            stream.read_line(&mut line).ok()?;
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = headers.get("content-length") {
        stream.take(length.parse().ok()?).read_to_end(&mut body).ok()?;
    }
    Some(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
}

fn headers(stream: &mut impl BufRead) -> Option<BTreeMap<String, String>> {
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(':') else { return Some(headers) };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
}

pub(crate) fn try_get(url: &str, path: &str) -> Option<Answer> {
    send(url, "GET", path, None, None)
}

#[track_caller]
pub(crate) fn get(url: &str, path: &str) -> Answer {
    try_get(url, path).expect("an answer")
}

#[track_caller]
pub(crate) fn call(url: &str, method: &str, path: &str, body: &Value) -> Answer {
    send(url, method, path, None, Some(body)).expect("an answer")
}

/// A server of one file, as somebody else's web server would be.
pub(crate) struct FileServer {
    pub(crate) url: String,
    asked: Arc<AtomicUsize>,
}

impl FileServer {
    /// Serves `content` at any path for as long as the test runs.
    pub(crate) fn start(content: &'static [u8]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let url = format!("http://{}/program", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut request = String::new();
                // A connection without a request is somebody's who thought better of it.
                if reader.read_line(&mut request).is_ok_and(|read| read > 0) && headers(&mut reader).is_some() {
                    counter.fetch_add(1, Ordering::Relaxed);
                    let head =
                        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", content.len());
                    let whole = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(content));
                    drop(whole);
                }
            }
        });
        Self { url, asked }
    }

    /// How often it was asked.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}
