//! Uploads and downloads.

use executr_spec::Digest;
use reqwest::Method;
use serde_json::json;

use crate::running::{Server, Setup, read};

#[tokio::test]
async fn what_is_uploaded_comes_back_whole_and_in_ranges() {
    let server = Server::start().await;
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let path = format!("/blobs/{}", Digest::of(&bytes));
    assert_eq!(server.get(&path).await.0, 404);
    assert_eq!(server.request(Method::HEAD, &path).send().await.unwrap().status(), 404);
    for _ in 0..2 {
        assert_eq!(read(server.request(Method::PUT, &path).body(bytes.clone())).await.0, 201);
    }
    let head = server.request(Method::HEAD, &path).send().await.unwrap();
    assert_eq!((head.status().as_u16(), head.headers()["content-length"].to_str().unwrap()), (200, "3000000"));

    for (range, status, expected) in [
        (None, 200, &bytes[..]),
        (Some("bytes=10-19"), 206, &bytes[10..20]),
        (Some("bytes=2999990-"), 206, &bytes[2_999_990..]),
        (Some("bytes=1048570-1048580"), 206, &bytes[1_048_570..=1_048_580]),
        (Some("bytes=-5"), 206, &bytes[2_999_995..]),
    ] {
        let request = server.request(Method::GET, &path);
        let request = match range {
            Some(range) => request.header("range", range),
            None => request,
        };
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{range:?}");
        assert_eq!(response.headers()["content-length"], expected.len().to_string().as_str());
        assert!(response.bytes().await.unwrap() == expected, "{range:?}");
    }
    let (status, body) = read(server.request(Method::GET, &path).header("range", "bytes=3000000-")).await;
    assert_eq!((status.as_u16(), &body["context"]["size"]), (416, &json!("3000000")));
}

#[tokio::test]
async fn an_empty_blob_is_a_blob() {
    let server = Server::start().await;
    let path = format!("/blobs/{}", Digest::of(b""));
    assert_eq!(read(server.request(Method::PUT, &path).body("")).await.0, 201);
    let response = server.request(Method::GET, &path).send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.bytes().await.unwrap().len()), (200, 0));
}

#[tokio::test]
async fn other_bytes_and_too_many_are_refused() {
    let coordinator = executr_coordinator::Options { max_blob_bytes: 100, ..Default::default() };
    let server = Server::with(Setup { coordinator, ..Setup::default() }).await;
    let path = format!("/blobs/{}", Digest::of(b"these"));
    let (status, body) = read(server.request(Method::PUT, &path).body("others")).await;
    assert_eq!((status.as_u16(), &body["code"]), (400, &json!("bad_request")));
    assert_eq!(server.get(&path).await.0, 404);

    let many = vec![7; 101];
    let path = format!("/blobs/{}", Digest::of(&many));
    let (status, body) = read(server.request(Method::PUT, &path).body(many.clone())).await;
    assert_eq!((status.as_u16(), &body["code"]), (413, &json!("too_large")));
    let unannounced = futures_util::stream::iter([Ok::<_, std::io::Error>(bytes::Bytes::from(many))]);
    let request = server.request(Method::PUT, &path).body(reqwest::Body::wrap_stream(unannounced));
    assert_eq!(read(request).await.0, 413);
}
