//! Access tokens.

use std::time::Duration;

use executr_api::Role;
use executr_spec::{Digest, Timestamp, TokenId};
use executr_store::TokenRecord;
use uuid::Uuid;

use super::Harness;
use super::stage::Stage;

fn token(secret: &[u8]) -> TokenRecord {
    TokenRecord {
        id: TokenId(Uuid::new_v4()),
        hash: Digest::of(secret),
        role: Role::Submit,
        name: Some("ci".to_owned()),
        tenant: "team".parse().expect("a tenant"),
        created_at: Timestamp(0),
        expires_at: None,
    }
}

pub(crate) async fn found_by_hash<H: Harness>(stage: Stage<H>) {
    let before = stage.now().await;
    let token = token(b"secret");
    stage.store.put_token(token.clone()).await.expect("recorded");
    let found = stage.store.token_by_hash(token.hash).await.expect("read").expect("a token");
    assert!(found.created_at >= before && found.created_at <= stage.now().await);
    assert_eq!(TokenRecord { created_at: Timestamp(0), ..found }, token);
    assert_eq!(stage.store.token_by_hash(Digest::of(b"other")).await.expect("read"), None);
}

pub(crate) async fn expired_tokens_open_nothing<H: Harness>(stage: Stage<H>) {
    let expires_at = Some(stage.now().await.plus(Duration::from_secs(60)));
    let token = TokenRecord { expires_at, ..token(b"secret") };
    stage.store.put_token(token.clone()).await.expect("recorded");
    assert!(stage.store.token_by_hash(token.hash).await.expect("read").is_some());
    stage.pass(Duration::from_secs(60)).await;
    assert_eq!(stage.store.token_by_hash(token.hash).await.expect("read"), None);
    assert_eq!(stage.store.tokens().await.expect("listed")[0].expires_at, expires_at);
}

pub(crate) async fn revoked_tokens_are_gone<H: Harness>(stage: Stage<H>) {
    let token = token(b"secret");
    stage.store.put_token(token.clone()).await.expect("recorded");
    assert!(stage.store.revoke_token(token.id).await.expect("revoked"));
    assert!(!stage.store.revoke_token(token.id).await.expect("revoked"));
    assert_eq!(stage.store.token_by_hash(token.hash).await.expect("read"), None);
    assert_eq!(stage.store.tokens().await.expect("listed"), []);
}

pub(crate) async fn listed_in_order<H: Harness>(stage: Stage<H>) {
    let mut ids = vec![];
    for secret in [b"a", b"b", b"c"] {
        let token = token(secret);
        ids.push(token.id);
        stage.store.put_token(token).await.expect("recorded");
        stage.pass(Duration::from_secs(1)).await;
    }
    let listed: Vec<_> = stage.store.tokens().await.expect("listed").into_iter().map(|token| token.id).collect();
    assert_eq!(listed, ids);
}
