//! What a URL means.

use std::fmt;
use std::path::PathBuf;

use executr_spec::Digest;
use reqwest::Url;

use super::CacheError;

/// Where a program comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A file of this machine.
    File(PathBuf),
    /// A web server.
    Web(Url),
    /// The server's own blob.
    Blob(Digest),
}

impl Source {
    pub(super) fn parse(url: &str, digest: Digest) -> Result<Self, CacheError> {
        let wrong = |problem: &str| CacheError::Url { url: shown(url), problem: problem.to_owned() };
        if let Some(blob) = url.strip_prefix("blob:") {
            let blob: Digest = blob.parse().map_err(|_| wrong("write it as blob:<sha256>"))?;
            if blob != digest {
                return Err(wrong("its digest is another than the binary's `sha256`"));
            }
            return Ok(Self::Blob(digest));
        }
        let parsed = Url::parse(url).map_err(|error| wrong(&format!("{error}; write a whole URL")))?;
        match parsed.scheme() {
            "http" | "https" => Ok(Self::Web(parsed)),
            "file" => parsed
                .to_file_path()
                .map(Self::File)
                .map_err(|()| wrong("it names no file of this machine; write it as file:///path")),
            _ => Err(wrong("use http://, https://, file:/// or blob:<sha256>")),
        }
    }
}

/// Without what may be secret: user, password and query.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file://{}", path.display()),
            Self::Blob(digest) => write!(f, "blob:{digest}"),
            Self::Web(url) => f.write_str(&without_secrets(url.clone())),
        }
    }
}

fn shown(url: &str) -> String {
    Url::parse(url).map_or_else(|_| url.chars().take(200).collect(), without_secrets)
}

pub(super) fn without_secrets(mut url: Url) -> String {
    // Refused only by URLs that have no place for them.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    if url.query().is_some() {
        url.set_query(Some("…"));
    }
    url.set_fragment(None);
    url.to_string().replace("%E2%80%A6", "…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_told_apart() {
        let digest = Digest::of(b"x");
        assert_eq!(Source::parse("file:///opt/a%20b", digest).unwrap(), Source::File("/opt/a b".into()));
        assert_eq!(Source::parse(&format!("blob:{digest}"), digest).unwrap(), Source::Blob(digest));
        assert!(matches!(Source::parse("https://h/b", digest).unwrap(), Source::Web(_)));
        for url in ["blob:12", &format!("blob:{}", Digest::of(b"y")), "ftp://h/b", "nothing", "file://host/b"] {
            assert!(Source::parse(url, digest).is_err_and(|error| error.is_final()), "{url}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let source = Source::parse("https://me:pw@host/b?X-Signature=abc#f", Digest::of(b"x")).unwrap();
        assert_eq!(source.to_string(), "https://host/b?…");
    }
}
