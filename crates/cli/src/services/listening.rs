//! Where a server listens, and for whom.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use executr_coordinator::Coordinator;
use executr_server::{Metrics, ServerOptions, TlsFiles};

use crate::arguments::ListeningArgs;
use crate::errors::{Failure, Result};
use crate::exit::Exit;

/// A socket that is bound, and what it takes to serve on it.
#[derive(Debug)]
pub(crate) struct Listening {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<TlsFiles>,
    anonymous: bool,
}

impl Listening {
    /// Binds the socket the flags name. Without tokens nobody but this machine is listened to, unless the flags say so
    /// in so many words.
    pub(crate) fn bind(arguments: &ListeningArgs, tls: Option<TlsFiles>, has_tokens: bool) -> Result<Self> {
        let host = host(arguments, has_tokens)?;
        let asked = SocketAddr::new(host, arguments.port);
        let listener = TcpListener::bind(asked).map_err(|error| cannot_bind(asked, &error))?;
        let address = listener.local_addr().map_err(|error| cannot_bind(asked, &error))?;
        Ok(Self { listener, address, tls, anonymous: host.is_loopback() || arguments.insecure_no_tokens })
    }

    /// The URL by which this machine reaches it.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        format!("{scheme}://{address}")
    }

    /// Writes the port to the file that was asked for, whole or not at all.
    pub(crate) fn tell_port(&self, arguments: &ListeningArgs) -> Result<()> {
        let Some(path) = &arguments.port_file else { return Ok(()) };
        let new = path.with_extension("new");
        fs::write(&new, format!("{}\n", self.address.port()))
            .and_then(|()| fs::rename(&new, path))
            .map_err(|error| Failure::doing(format!("write the port to {}", path.display()), error))
    }
}

/// Serves until `stop` is done and running requests have ended.
pub(crate) async fn serve(
    coordinator: Coordinator,
    metrics: Arc<Metrics>,
    listening: Listening,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let mut options = ServerOptions::new(listening.listener);
    options.tls = listening.tls;
    options.allow_anonymous = listening.anonymous;
    executr_server::serve(coordinator, metrics, options, stop).await.map_err(|error| Failure::new(Exit::FAILURE, error))
}

fn host(arguments: &ListeningArgs, has_tokens: bool) -> Result<IpAddr> {
    let everyone = IpAddr::from(Ipv4Addr::UNSPECIFIED);
    let this_machine = IpAddr::from(Ipv4Addr::LOCALHOST);
    let host = arguments.host.unwrap_or(if has_tokens { everyone } else { this_machine });
    if host.is_loopback() || has_tokens || arguments.insecure_no_tokens {
        return Ok(host);
    }
    Err(Failure::new(
        Exit::NOT_ALLOWED,
        format!("there is no access token, so whoever reaches {host} could run programs on the executors"),
    )
    .remedy(
        "make a token with `executr token create --role admin` and the same --db-url or --data-dir; or leave --host away; \
         or, where that is what you want, say --insecure-no-tokens",
    ))
}

fn cannot_bind(address: SocketAddr, error: &io::Error) -> Failure {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => "another program listens there: choose another port with --port, or 0 for any",
        io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege: choose another with --port",
        io::ErrorKind::AddrNotAvailable => "this machine has no such address: choose another with --host",
        _ => return Failure::doing(format!("listen on {address}"), error),
    };
    Failure::doing(format!("listen on {address}"), error).remedy(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(host: Option<&str>, insecure_no_tokens: bool) -> ListeningArgs {
        let host = host.map(|host| host.parse().expect("an address"));
        ListeningArgs { host, port: 0, port_file: None, insecure_no_tokens }
    }

    fn chosen(host_given: Option<&str>, insecure: bool, has_tokens: bool) -> Option<String> {
        host(&arguments(host_given, insecure), has_tokens).ok().map(|host| host.to_string())
    }

    #[test]
    fn without_tokens_only_this_machine_is_listened_to() {
        assert_eq!(chosen(None, false, false).as_deref(), Some("127.0.0.1"));
        assert_eq!(chosen(None, false, true).as_deref(), Some("0.0.0.0"));
        assert_eq!(chosen(Some("::1"), false, false).as_deref(), Some("::1"));
        assert_eq!(chosen(Some("0.0.0.0"), false, false), None);
        assert_eq!(chosen(Some("0.0.0.0"), false, true).as_deref(), Some("0.0.0.0"));
        assert_eq!(chosen(Some("0.0.0.0"), true, false).as_deref(), Some("0.0.0.0"));
    }

    #[test]
    fn a_port_in_use_is_told_with_what_to_do() {
        let first = Listening::bind(&arguments(None, false), None, false).expect("a free port");
        let taken = ListeningArgs { port: first.address.port(), ..arguments(None, false) };
        let Err(Failure::Told { remedy, .. }) = Listening::bind(&taken, None, false) else { panic!("bound twice") };
        assert!(remedy.unwrap_or_default().contains("--port"));
        assert_eq!(first.url(), format!("http://127.0.0.1:{}", first.address.port()));
    }
}
