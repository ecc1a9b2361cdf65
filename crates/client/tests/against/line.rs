//! A bad line: a relay that breaks connections after so many bytes of answer.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};

/// Relays to a server.
pub(crate) struct Line {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
}

impl Line {
    /// The n-th connection is broken after `after(n)` bytes from the server; `None` keeps it.
    pub(crate) async fn to(server: SocketAddr, after: fn(usize) -> Option<u64>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(relay(client, server, after(number)));
            }
        });
        Self { address, connections }
    }
}

async fn relay(client: TcpStream, server: SocketAddr, most: Option<u64>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let there = tokio::spawn(async move {
        let _ = copy(&mut from_client, &mut to_server).await;
    });
    let _ = match most {
        Some(most) => copy(&mut from_server.take(most), &mut to_client).await,
        None => copy(&mut from_server.take(u64::MAX), &mut to_client).await,
    };
    let _ = to_client.shutdown().await;
    there.abort();
}
