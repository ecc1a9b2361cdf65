//! What went wrong on the way to the server or back, in words that say what to do.

use std::error::Error;
use std::io;

use executr_api::{ApiError, ErrorCode};

use crate::server_url::ServerUrl;

/// Turns a transport's error into the API's. Its context's `reason` tells the kinds apart: `refused`, `tls`, `name`,
/// `connect`, `timeout`, `interrupted`.
pub(crate) fn translate(server: &ServerUrl, error: &reqwest::Error) -> ApiError {
    let at = &server.shown;
    let unavailable =
        |reason: &str, message: String| ApiError::new(ErrorCode::Unavailable, message).with("reason", reason);
    if let Some(problem) = find::<rustls::Error>(error) {
        return unavailable("tls", tls_problem(at, problem));
    }
    if error.is_connect() {
        if error.is_timeout() {
            return unavailable(
                "timeout",
                format!("can't reach {at}: no answer in time; check the address and firewalls"),
            );
        }
        if find::<io::Error>(error).is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            return unavailable(
                "refused",
                format!("can't reach {at}: connection refused; is the server running? start one with `executr up`"),
            );
        }
        let root = root(error);
        if root.contains("lookup address") || root.contains("resolve") {
            return unavailable(
                "name",
                format!("can't reach {at}: the name can't be resolved ({root}); check the address"),
            );
        }
        return unavailable("connect", format!("can't reach {at}: {root}"));
    }
    if error.is_timeout() {
        return ApiError::new(ErrorCode::Timeout, format!("{at} took too long to answer; try again"))
            .with("reason", "timeout");
    }
    let root = root(error);
    if root.contains("HTTP version") || root.contains("HTTP parse") || root.contains("httparse") {
        return unavailable(
            "interrupted",
            format!("{at} doesn't answer with HTTP ({root}); does it want https:// instead, or is it another program?"),
        );
    }
    unavailable("interrupted", format!("the connection to {at} broke: {root}"))
}

fn tls_problem(at: &str, problem: &rustls::Error) -> String {
    match problem {
        rustls::Error::InvalidCertificate(why) => {
            format!("can't trust {at}: its certificate is not valid here ({why}); give its authority with --ca-cert")
        }
        rustls::Error::InvalidMessage(_) => {
            format!("can't speak TLS with {at}: it doesn't answer with TLS; does it want http:// instead?")
        }
        other => format!("can't speak TLS with {at}: {other}"),
    }
}

/// Whether the request certainly never reached the server.
pub(crate) fn never_sent(error: &ApiError) -> bool {
    matches!(error.context.get("reason").map(String::as_str), Some("refused" | "name" | "connect"))
}

/// The cause of type `E`, also one that an [`io::Error`] wraps.
fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        if let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref)
            && let Some(found) = find::<E>(inner)
        {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn root(error: &reqwest::Error) -> String {
    let mut last: &dyn Error = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
