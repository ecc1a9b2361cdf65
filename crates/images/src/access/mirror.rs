//! What stands in for a registry.

use std::str::FromStr;

use super::AccessError;

/// A place that has what a registry has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Which registry it stands in for; `*` for all.
    pub of: String,
    /// The mirror's host, with its port if one is said.
    pub host: String,
    /// What comes before the repository there, without slashes at its ends; often empty.
    pub prefix: String,
    /// It is spoken to without TLS.
    pub is_plain: bool,
}

/// `REGISTRY=http[s]://HOST[:PORT][/PREFIX]`.
impl FromStr for Mirror {
    type Err = AccessError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |why| AccessError::Mirror { text: text.to_owned(), why };
        let (of, url) = text.split_once('=').ok_or_else(|| wrong("it doesn't say of which registry"))?;
        let (is_plain, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err(wrong("its address begins with neither https:// nor http://")),
        };
        let (host, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if of.is_empty() || host.is_empty() || host.contains('@') {
            return Err(wrong("registry or host is missing, or it holds a password"));
        }
        let prefix = prefix.trim_matches('/').to_owned();
        Ok(Self { of: of.to_owned(), host: host.to_owned(), prefix, is_plain })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_says_of_what_where_and_how() {
        let mirror: Mirror = "docker.io=http://127.0.0.1:5000/hub/".parse().unwrap();
        assert_eq!((mirror.of.as_str(), mirror.host.as_str()), ("docker.io", "127.0.0.1:5000"));
        assert_eq!((mirror.prefix.as_str(), mirror.is_plain), ("hub", true));
        assert!(!"*=https://m.example".parse::<Mirror>().unwrap().is_plain);
        for text in ["m.example", "docker.io=m.example", "=https://m.example", "a=https://", "a=https://u:p@h"] {
            assert!(text.parse::<Mirror>().is_err(), "{text}");
        }
    }
}
