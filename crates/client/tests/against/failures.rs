//! What goes wrong is said in words that help.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};

use executr_api::{Client, ErrorCode};
use executr_client::{ClientOptions, HttpClient};
use executr_server::TlsFiles;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::server::{Server, client_of};

#[tokio::test]
async fn a_server_that_is_not_there_is_told_from_one_that_is_something_else() {
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let error = client_of(address).stats().await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Unavailable);
    assert_eq!(
        error.message,
        format!("can't reach http://{address}: connection refused; is the server running? start one with `executr up`")
    );

    let other = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = other.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = other.accept().await {
            let mut request = [0; 4_096];
            let _ = stream.read(&mut request).await;
            let page = b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\nConnection: close\r\n\r\nnope";
            let _ = stream.write_all(page).await;
        }
    });
    let error = client_of(address).stats().await.unwrap_err();
    assert_eq!(error.code, ErrorCode::NotFound);
    assert!(error.message.contains("not as an Executr server does"), "{error}");
}

#[tokio::test]
async fn names_that_are_none_are_told() {
    let client = HttpClient::new(ClientOptions::new("http://no-such-host.invalid")).unwrap();
    let error = client.stats().await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Unavailable);
    assert!(error.message.starts_with("can't reach http://no-such-host.invalid"), "{error}");
}

#[tokio::test]
async fn a_certificate_is_trusted_only_through_its_authority() {
    let directory = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let files = TlsFiles { cert: directory.path().join("cert.pem"), key: directory.path().join("key.pem") };
    fs::write(&files.cert, made.cert.pem()).unwrap();
    fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let other_file = directory.path().join("other.pem");
    fs::write(&other_file, other.cert.pem()).unwrap();

    let server = Server::with_tls(Some(files.clone())).await;
    let url = format!("https://localhost:{}", server.address.port());
    let with = |ca_cert| HttpClient::new(ClientOptions { ca_cert: Some(ca_cert), ..ClientOptions::new(&url) }).unwrap();
    with(files.cert).stats().await.unwrap();
    let error = with(other_file).stats().await.unwrap_err();
    assert_eq!((error.code, error.context["reason"].as_str()), (ErrorCode::Unavailable, "tls"));
    assert!(error.message.contains("--ca-cert"), "{error}");

    let plain = client_of(server.address).stats().await.unwrap_err();
    assert_eq!(plain.code, ErrorCode::Unavailable, "{plain}");
}

#[test]
fn options_that_make_no_sense_are_refused_before_anything_is_sent() {
    for options in [ClientOptions::new("http://"), ClientOptions::new("http://h").with_token("two\nlines")] {
        assert_eq!(HttpClient::new(options).unwrap_err().code, ErrorCode::BadRequest);
    }
}
