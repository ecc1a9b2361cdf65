//! What callers over TCP have to know.

use std::fmt;
use std::io::{self, Read};
use std::path::Path;

use subtle::ConstantTimeEq;
use tonic::Status;

/// Fewest characters: what is shorter can be guessed.
const FEWEST: usize = 16;
/// Most bytes read.
const MOST: u64 = 4096;

/// A secret that every call over TCP names. It is never shown.
pub struct Token(Vec<u8>);

impl Token {
    /// Reads it from a file, or a descriptor under the name of `/dev/fd/NUMBER`: arguments and environment of a process can be seen
    /// by others. White space around it doesn't count.
    ///
    /// # Errors
    /// When the file can't be read, or holds fewer than 16 characters.
    pub fn read(path: &Path) -> io::Result<Self> {
        let mut content = Vec::new();
        std::fs::File::open(path)?.take(MOST).read_to_end(&mut content)?;
        let token = content.trim_ascii();
        if token.len() < FEWEST {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a token has at least {FEWEST} characters; put a random one there"),
            ));
        }
        Ok(Self(token.to_vec()))
    }

    /// Whether a caller knows it, who says `authorization`. How long this takes tells nothing of it but its length.
    ///
    /// # Errors
    /// With what the caller is told.
    pub(super) fn check(&self, authorization: Option<&[u8]>) -> Result<(), Status> {
        let named = authorization.and_then(|text| text.strip_prefix(b"Bearer "));
        let is_known = named.is_some_and(|named| bool::from(named.ct_eq(&self.0)));
        if is_known {
            return Ok(());
        }
        Err(Status::unauthenticated(
            "the agent's token is missing or another one; send the metadata `authorization: Bearer TOKEN` with every call",
        ))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_itself_will_do() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "  0123456789abcdef\n").unwrap();
        let token = Token::read(file.path()).unwrap();
        assert!(token.check(Some(b"Bearer 0123456789abcdef")).is_ok());
        for wrong in
            [None, Some(&b""[..]), Some(b"Bearer "), Some(b"Bearer 0123456789abcdeF"), Some(b"0123456789abcdef")]
        {
            assert_eq!(token.check(wrong).unwrap_err().code(), tonic::Code::Unauthenticated);
        }
        assert_eq!(format!("{token:?}"), "Token");
    }

    #[test]
    fn a_short_one_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "guess me").unwrap();
        assert!(Token::read(file.path()).unwrap_err().to_string().contains("16"));
    }
}
