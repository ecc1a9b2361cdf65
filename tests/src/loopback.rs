//! Ports on the loopback interface, and whether somebody answers there.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// A port that nobody had a moment ago. Whoever is told to use it has to live with the rare case that somebody took it
/// in between; a program that can be given port 0 and says what it got does not have that.
///
/// # Panics
///
/// If loopback has no free port left.
#[must_use]
pub fn free_port() -> u16 {
    let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    probe.local_addr().expect("a bound socket has an address").port()
}

/// The status code with which an HTTP server on this port answers `GET path`, if anyone answers within a second.
#[must_use]
pub fn status_of(port: u16, path: &str) -> Option<u16> {
    let second = Duration::from_secs(1);
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), second).ok()?;
    stream.set_read_timeout(Some(second)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    // A status line is all that is looked at; an answer that goes on longer than a second has one too.
    drop(stream.take(4096).read_to_string(&mut answer));
    answer.split(' ').nth(1)?.parse().ok()
}
