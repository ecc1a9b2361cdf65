//! How `serve` is told to serve.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use executr_agent::keeper::Fault;
use executr_agent::serve::{Endpoint, Options, PATIENCE, Token};
use executr_agent_protocol::driver::Cgroups;

/// Reads them. A TCP socket is bound here, and its address told on standard output.
pub(crate) fn options(arguments: &[OsString]) -> Result<Options, Fault> {
    let (mut place, mut token, mut patience, mut cgroups) = (None, None, PATIENCE, Cgroups::Never);
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let mut value = || {
            let name = word.to_string_lossy();
            words.next().ok_or_else(|| Fault::Usage(format!("{name} lacks its value")))
        };
        match word.to_str() {
            Some("--socket") => place = Some(Place::Socket(value()?)),
            Some("--tcp") => place = Some(Place::Tcp(value()?)),
            Some("--stdio") => place = Some(Place::Stdio),
            Some("--token-file") => token = Some(value()?),
            Some("--patience") => {
                let seconds = value()?.to_str().and_then(|text| text.parse().ok());
                patience = seconds
                    .map(Duration::from_secs)
                    .ok_or_else(|| Fault::Usage("--patience is a number of seconds".to_owned()))?;
            }
            Some("--limits") => cgroups = Cgroups::WhereWritable,
            _ => return Err(Fault::Usage(format!("there is no argument {}", word.to_string_lossy()))),
        }
    }
    let endpoint = match place {
        Some(Place::Socket(path)) => Endpoint::Socket(path.into()),
        Some(Place::Tcp(address)) => bound(address, token)?,
        Some(Place::Stdio) => Endpoint::Stdio,
        None => return Err(Fault::Usage("say where to serve: --socket PATH, --tcp PORT or --stdio".to_owned())),
    };
    Ok(Options { endpoint, patience, cgroups })
}

enum Place<'word> {
    Socket(&'word OsStr),
    Tcp(&'word OsStr),
    Stdio,
}

fn bound(address: &OsStr, token: Option<&OsString>) -> Result<Endpoint, Fault> {
    let text = address.to_string_lossy();
    // Numbers only: the agent resolves no names.
    let address = text.parse().or_else(|_| text.parse().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))));
    let address =
        address.map_err(|_| Fault::Usage(format!("`{text}` is neither a port nor ADDRESS:PORT in numbers")))?;
    let token =
        token.ok_or_else(|| Fault::Usage("over TCP callers must know a token: --token-file PATH".to_owned()))?;
    let problem = |what: String| move |error| Fault::Usage(format!("{what}: {error}"));
    let token = Token::read(Path::new(token)).map_err(problem(format!("the token {}", token.to_string_lossy())))?;
    let listener = TcpListener::bind(address).map_err(problem(format!("{address} can't be listened on")))?;
    let bound = listener.local_addr().map_err(problem("the address can't be told".to_owned()))?;
    // Whoever started it and doesn't want to know has closed that.
    let _ = writeln!(std::io::stdout(), "{bound}");
    Ok(Endpoint::Tcp { listener, token })
}
