//! The files that `docker login` and `podman login` write: `config.json`, `auth.json`.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::{AccessError, Login, credential_helper, read_if_there};

/// What Docker calls its own registry there.
const HUB: &str = "docker.io";

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Config {
    auths: BTreeMap<String, Entry>,
    creds_store: String,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

/// What the file at `path` knows about a registry, or a repository there: the entry that says most wins.
pub(super) fn login(path: &Path, registry: &str, repository: &str) -> Result<Option<Login>, AccessError> {
    let Some(text) = read_if_there(path)? else { return Ok(None) };
    let wrong = |why: String| AccessError::Config { path: path.to_owned(), why };
    let config: Config =
        serde_json::from_str(&text).map_err(|error| wrong(format!("is not a file of credentials: {error}")))?;
    let registry_key = key(registry);
    let helper = config.cred_helpers.iter().find(|(named, _)| key(named) == registry_key).map(|(_, helper)| helper);
    if let Some(helper) = helper {
        return credential_helper::ask(helper, path, &asked(registry_key));
    }
    // `registry/team/tool`, then `registry/team`, then `registry`.
    let mut wanted = format!("{registry_key}/{repository}");
    loop {
        if let Some((_, entry)) = config.auths.iter().find(|(named, _)| named.trim_end_matches('/') == wanted)
            && let Some(login) = entry.login().map_err(|why| wrong(format!("{why} for {wanted}")))?
        {
            return Ok(Some(login));
        }
        match wanted.rsplit_once('/') {
            Some((shorter, _)) => wanted.truncate(shorter.len()),
            None => break,
        }
    }
    for (named, entry) in &config.auths {
        if key(named) == registry_key
            && !is_namespaced(named)
            && let Some(login) = entry.login().map_err(|why| wrong(format!("{why} for {named}")))?
        {
            return Ok(Some(login));
        }
    }
    if !config.creds_store.is_empty() {
        return credential_helper::ask(&config.creds_store, path, &asked(registry_key));
    }
    Ok(None)
}

/// How helpers know a registry.
fn asked(key: &str) -> String {
    if key == HUB { "https://index.docker.io/v1/".to_owned() } else { key.to_owned() }
}

/// What a registry is called, whichever of its spellings is used: without scheme and path.
pub(super) fn key(named: &str) -> &str {
    let bare = named.strip_prefix("https://").or_else(|| named.strip_prefix("http://")).unwrap_or(named);
    match bare.split('/').next().unwrap_or(bare) {
        "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => HUB,
        host => host,
    }
}

/// Whether an entry is for a part of a registry, as Podman writes them. Docker's own have a scheme or an API's version.
fn is_namespaced(named: &str) -> bool {
    let path = named.split_once('/').map_or("", |(_, path)| path.trim_end_matches('/'));
    !named.contains("://") && !matches!(path, "" | "v1" | "v2")
}

impl Entry {
    fn login(&self) -> Result<Option<Login>, &'static str> {
        if !self.identitytoken.is_empty() {
            return Ok(Some(Login::IdentityToken(self.identitytoken.clone())));
        }
        if !self.username.is_empty() {
            return Ok(Some(Login::Password { username: self.username.clone(), password: self.password.clone() }));
        }
        if self.auth.is_empty() {
            return Ok(None);
        }
        let decoded = BASE64_STANDARD.decode(&self.auth).map_err(|_| "`auth` is not base64")?;
        let decoded = String::from_utf8(decoded).map_err(|_| "`auth` is not UTF-8")?;
        let (username, password) = decoded.split_once(':').ok_or("`auth` holds no colon")?;
        // Some versions of Docker end it with a zero.
        let password = password.trim_end_matches('\0');
        Ok(Some(Login::Password { username: username.to_owned(), password: password.to_owned() }))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn who(config: &str, registry: &str, repository: &str) -> Result<Option<String>, String> {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("config.json");
        fs::write(&path, config).unwrap();
        match login(&path, registry, repository) {
            Ok(Some(Login::Password { username, password })) => Ok(Some(format!("{username}:{password}"))),
            Ok(Some(Login::IdentityToken(token))) => Ok(Some(token)),
            Ok(_) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn entries_are_found_by_any_spelling_and_the_most_exact_wins() {
        // ann:secret, bob:x:y
        let config = r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "YW5uOnNlY3JldA=="},
            "r.example:5000": {"auth": "Ym9iOng6eQ=="},
            "r.example:5000/team": {"username": "team", "password": "t"},
            "https://t.example/v2/": {"identitytoken": "token"},
            "empty.example": {}
        }}"#;
        for (registry, repository, expected) in [
            ("docker.io", "library/alpine", Some("ann:secret")),
            ("r.example:5000", "tool", Some("bob:x:y")),
            ("r.example:5000", "team/tool", Some("team:t")),
            ("r.example:5000", "teams/tool", Some("bob:x:y")),
            ("r.example", "tool", None),
            ("t.example", "a", Some("token")),
            ("empty.example", "a", None),
        ] {
            assert_eq!(who(config, registry, repository), Ok(expected.map(str::to_owned)), "{registry}/{repository}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_knows_nothing_and_a_broken_one_is_named() {
        assert!(login(Path::new("/nonexistent/config.json"), "a.example", "b").unwrap().is_none());
        assert!(who("{", "a.example", "b").unwrap_err().contains("docker login"));
        assert!(who(r#"{"auths": {"a.example": {"auth": "%"}}}"#, "a.example", "b").unwrap_err().contains("base64"));
    }
}
