//! The one error both traits answer with.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

/// What kind of thing went wrong; each stands for one HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// 400: the request can't be understood or allowed as it is.
    BadRequest,
    /// 401: no token, or one that isn't valid.
    Unauthorized,
    /// 403: the token's role doesn't allow it.
    Forbidden,
    /// 404: there is no such thing.
    NotFound,
    /// 409: the lease under which it was sent is no longer held.
    LeaseLost,
    /// 409: bytes before the offset are missing; `context.end` says from where to send.
    OutputGap,
    /// 409: the thing's state doesn't allow it.
    Conflict,
    /// 413: over a limit.
    TooLarge,
    /// 426: server and worker are too far apart in version.
    UpgradeRequired,
    /// 429: too much at once; try later.
    TooMany,
    /// 500: a fault of the server.
    Internal,
    /// 503: the server, or its database, can't be reached just now. Trying again is right.
    Unavailable,
    /// 504: it took longer than allowed.
    Timeout,
}

impl ErrorCode {
    /// The HTTP status.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::LeaseLost | Self::OutputGap | Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::UpgradeRequired => 426,
            Self::TooMany => 429,
            Self::Internal => 500,
            Self::Unavailable => 503,
            Self::Timeout => 504,
        }
    }

    /// The best guess for an answer that carries nothing but its HTTP status.
    #[must_use]
    pub fn from_status(status: u16) -> Self {
        match status {
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
            404 => Self::NotFound,
            409 => Self::Conflict,
            413 => Self::TooLarge,
            426 => Self::UpgradeRequired,
            429 => Self::TooMany,
            502 | 503 => Self::Unavailable,
            408 | 504 => Self::Timeout,
            400..=499 => Self::BadRequest,
            _ => Self::Internal,
        }
    }

    /// Whether the same request may succeed later without being changed.
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Unavailable | Self::Timeout | Self::TooMany | Self::Internal)
    }
}

/// An error as the API answers it: `{"error": "text", "code": "…", "context": {…}}`.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize, ToSchema)]
#[error("{message}")]
pub struct ApiError {
    /// What went wrong and what to do, in words.
    #[serde(rename = "error")]
    pub message: String,
    /// The same for programs.
    pub code: ErrorCode,
    /// Names and values that belong to it.
    #[serde(default)]
    pub context: BTreeMap<String, String>,
}

impl ApiError {
    /// An error with no context yet.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { message: message.into(), code, context: BTreeMap::new() }
    }

    /// The error with one more name and value.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.context.insert(name.to_owned(), value.to_string());
        self
    }
}
