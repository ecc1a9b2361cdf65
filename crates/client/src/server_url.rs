//! What users write for the server, made into the address of its API.

use executr_api::{ApiError, ErrorCode};
use reqwest::Url;

const PREFIX: &str = "/api/v1";

/// The address of an API without a slash at its end, and what to call the server in messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerUrl {
    base: String,
    /// Scheme, host and port, for people.
    pub(crate) shown: String,
    /// Whether it speaks TLS.
    pub(crate) https: bool,
}

impl ServerUrl {
    /// Reads an address with or without scheme, trailing slashes and `/api/v1`.
    pub(crate) fn parse(text: &str) -> Result<Self, ApiError> {
        let wrong = |why: &str| {
            ApiError::new(
                ErrorCode::BadRequest,
                format!("`{text}` is not a server's address: {why}; write it as http://host:8080"),
            )
        };
        let text = text.trim();
        let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let url = Url::parse(&with_scheme).map_err(|error| wrong(&error.to_string()))?;
        let https = match url.scheme() {
            "http" => false,
            "https" => true,
            other => return Err(wrong(&format!("`{other}` is not a scheme it speaks"))),
        };
        if url.host_str().is_none_or(str::is_empty) {
            return Err(wrong("it names no host"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("it holds a user or password; give the token by itself"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("it has a `?` or `#`"));
        }
        let shown = url.origin().ascii_serialization();
        let path = url.path().trim_end_matches('/');
        let path = path.strip_suffix(PREFIX).unwrap_or(path).trim_end_matches('/');
        Ok(Self { base: format!("{shown}{path}{PREFIX}"), shown, https })
    }

    /// The address of one route: `path` starts with a slash and needs no escaping.
    pub(crate) fn route(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for text in [
            "http://h:8080",
            "http://h:8080/",
            "http://h:8080/api/v1",
            "http://h:8080/api/v1/",
            " http://h:8080// ",
            "h:8080",
        ] {
            let url = ServerUrl::parse(text).expect(text);
            assert_eq!(url.route("/jobs"), "http://h:8080/api/v1/jobs", "{text}");
            assert_eq!((url.shown.as_str(), url.https), ("http://h:8080", false));
        }
        let url = ServerUrl::parse("https://h/executr/api/v1").expect("an address");
        assert_eq!(url.route("/health"), "https://h/executr/api/v1/health");
        let url = ServerUrl::parse("http://[::1]:8080").expect("an address");
        assert_eq!(url.route("/health"), "http://[::1]:8080/api/v1/health");
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_reason() {
        for (text, told) in [
            ("", "is not a server's address"),
            ("ftp://h", "not a scheme"),
            ("http://", "is not a server's address"),
            ("http://user:pw@h", "user or password"),
            ("http://h?x=1", "has a `?`"),
        ] {
            let error = ServerUrl::parse(text).expect_err(text);
            assert!(error.message.contains(told), "{text}: {error}");
        }
    }
}
