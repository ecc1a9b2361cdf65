//! Access tokens as the API shows them.

use std::fmt;
use std::str::FromStr;

use executr_spec::{Tenant, Timestamp, TokenId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything, tokens too.
    Admin,
    /// Submit, cancel, read, upload blobs.
    Submit,
    /// Look at jobs, output and statistics.
    Read,
    /// Be a worker.
    Execute,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 4] = [Self::Admin, Self::Submit, Self::Read, Self::Execute];

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Submit => "submit",
            Self::Read => "read",
            Self::Execute => "execute",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| format!("`{text}` is not a role; use admin, submit, read or execute"))
    }
}

/// What a token is asked for with.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// What it allows.
    pub role: Role,
    /// What people call it.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 200, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    pub name: Option<String>,
    /// On whose behalf its jobs are submitted; `default` when absent.
    #[serde(default)]
    pub tenant: Option<Tenant>,
    /// Not valid from then on.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
}

/// A token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    /// By which it is named.
    pub id: TokenId,
    /// What it allows.
    pub role: Role,
    /// What people call it.
    pub name: Option<String>,
    /// On whose behalf its jobs are submitted.
    pub tenant: Tenant,
    /// When it was made.
    pub created_at: Timestamp,
    /// Not valid from then on.
    pub expires_at: Option<Timestamp>,
}

/// A new token with its secret, which is shown this once.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NewToken {
    /// The token.
    #[serde(flatten)]
    pub token: TokenView,
    /// What to send as `Authorization: Bearer …`.
    pub secret: String,
}
