//! Who may do what.
//!
//! Whoever calls shows a token: an access token with a role, or a job's own. While no token exists at all, everybody has
//! all rights, if the operator allows that.

use std::marker::PhantomData;
use std::net::IpAddr;

use axum::extract::{FromRequestParts, Path};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use executr_api::{ErrorCode, Fence, Role};
use executr_coordinator::Coordinator;
use executr_spec::{JobId, Tenant};

use crate::app::Shared;
use crate::failure::{Answer, Failure};

/// What a job's own token begins with.
const JOB_TOKEN: &str = "executr-job-";

/// Who calls.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// Nobody in particular, allowed everything.
    Anonymous,
    /// The bearer of an access token.
    Token { role: Role, tenant: Tenant, name: Option<String> },
    /// A job, by the lease under which it runs.
    Job(Fence),
}

impl Caller {
    fn has(&self, roles: &[Role]) -> bool {
        match self {
            Self::Anonymous => true,
            Self::Token { role, .. } => *role == Role::Admin || roles.contains(role),
            Self::Job(_) => false,
        }
    }

    fn into_parts(self) -> (Tenant, Option<(Role, Option<String>)>) {
        match self {
            Self::Token { role, tenant, name } => (tenant, Some((role, name))),
            Self::Anonymous | Self::Job(_) => (Tenant::default(), None),
        }
    }
}

impl FromRequestParts<Shared> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &Shared) -> Answer<Self> {
        let Some(header) = parts.headers.get(AUTHORIZATION) else {
            return anonymous(parts, app).await;
        };
        let secret = header.to_str().ok().and_then(bearer).ok_or_else(|| {
            Failure::new(ErrorCode::Unauthorized, "the Authorization header isn't `Bearer TOKEN`; send it so")
        })?;
        let unknown = || {
            Failure::new(
                ErrorCode::Unauthorized,
                "this token is not valid: unknown, revoked or expired; an administrator can make one with `executr token create`",
            )
        };
        if secret.starts_with(JOB_TOKEN) {
            let fence = app.coordinator.job_token(secret).await?;
            return fence.map(Self::Job).ok_or_else(unknown);
        }
        let token = app.coordinator.authenticate(secret).await?.ok_or_else(unknown)?;
        Ok(Self::Token { role: token.role, tenant: token.tenant, name: token.name })
    }
}

async fn anonymous(parts: &Parts, app: &Shared) -> Answer<Caller> {
    if !app.allow_anonymous || app.coordinator.has_tokens().await? {
        return Err(Failure::new(
            ErrorCode::Unauthorized,
            "this server wants a token: send `Authorization: Bearer TOKEN` (--token-file or EXECUTR_TOKEN); an administrator can make one with `executr token create`",
        ));
    }
    // Without tokens any web page that a user of this machine looks at could submit jobs; browsers say where such
    // requests come from.
    if parts.headers.contains_key(ORIGIN) {
        return Err(Failure::new(
            ErrorCode::Forbidden,
            "a server without tokens doesn't answer web pages; make a token with `executr token create` and send it",
        ));
    }
    // Nor may a page reach it under a name of its own that it lets point here, which makes no such request.
    let host = parts.headers.get(HOST).map(|host| host.to_str().unwrap_or_default());
    let host = host.or_else(|| parts.uri.authority().map(Authority::as_str));
    if app.on_loopback && !host.is_none_or(is_local) {
        return Err(Failure::new(
            ErrorCode::Forbidden,
            "a server without tokens on a loopback address answers only to that address and `localhost`; ask for it so, or make a token with `executr token create` and send it",
        ));
    }
    Ok(Caller::Anonymous)
}

/// Whether a `Host` can't be a name that somebody else lets point here.
fn is_local(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let host = authority.host().trim_end_matches('.');
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    address.parse::<IpAddr>().is_ok() || host.eq_ignore_ascii_case("localhost")
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, secret) = header.split_once(' ')?;
    let secret = secret.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !secret.is_empty()).then_some(secret)
}

/// A right that routes ask for.
pub(crate) trait Right: Send + Sync {
    /// Roles that have it, besides admin.
    const ROLES: &'static [Role];
}

macro_rules! right {
    ($(#[$doc:meta])* $name:ident: $($role:ident),*) => {
        $(#[$doc])*
        pub(crate) struct $name;

        impl Right for $name {
            const ROLES: &'static [Role] = &[$(Role::$role),*];
        }
    };
}

right! {
    /// To look at jobs, output and statistics.
    Read: Read, Submit
}
right! {
    /// To submit, cancel and upload.
    Submit: Submit
}
right! {
    /// To be a worker.
    Execute: Execute
}
right! {
    /// To make and revoke tokens.
    Administer:
}

/// Proof that the caller has the right `R`, and on whose behalf it acts.
pub(crate) struct May<R> {
    pub(crate) tenant: Tenant,
    /// The token that was shown.
    token: Option<(Role, Option<String>)>,
    right: PhantomData<R>,
}

impl<R> May<R> {
    /// Who it is, for people who read logs.
    pub(crate) fn who(&self) -> String {
        match &self.token {
            Some((role, Some(name))) => format!("token `{name}`, {role}, tenant {}", self.tenant),
            Some((role, None)) => format!("a token without a name, {role}, tenant {}", self.tenant),
            None => "somebody without a token".to_owned(),
        }
    }
}

impl<R: Right> FromRequestParts<Shared> for May<R> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &Shared) -> Answer<Self> {
        let caller = Caller::from_request_parts(parts, app).await?;
        if caller.has(R::ROLES) {
            let (tenant, token) = caller.into_parts();
            return Ok(Self { tenant, token, right: PhantomData });
        }
        Err(forbidden(&caller, R::ROLES))
    }
}

/// Proof that the caller may read the output of the job in the path: by its role, or as that job.
pub(crate) struct MayReadOutput;

impl FromRequestParts<Shared> for MayReadOutput {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &Shared) -> Answer<Self> {
        let caller = Caller::from_request_parts(parts, app).await?;
        if caller.has(Read::ROLES) {
            return Ok(Self);
        }
        if let Caller::Job(fence) = &caller
            && let Ok(Path(id)) = Path::<JobId>::from_request_parts(parts, app).await
            && fence.job == id
        {
            return Ok(Self);
        }
        Err(forbidden(&caller, Read::ROLES))
    }
}

/// Proof that the caller may bring output and blobs, under any lease or only its own.
pub(crate) struct MayAppend {
    own: Option<Fence>,
}

impl MayAppend {
    /// Checks that this right covers `fence`.
    pub(crate) fn covers(&self, fence: &Fence) -> Answer<()> {
        match &self.own {
            Some(own) if own != fence => Err(Failure::new(
                ErrorCode::Forbidden,
                "a job's own token is good under its own lease alone; use the token that came with this lease",
            )),
            _ => Ok(()),
        }
    }
}

impl FromRequestParts<Shared> for MayAppend {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &Shared) -> Answer<Self> {
        // Whoever appends by a job's token held that lease once: that it is over is what has to be said.
        if let Some(secret) = parts.headers.get(AUTHORIZATION).and_then(|header| bearer(header.to_str().ok()?))
            && Coordinator::is_job_token(secret)
            && app.coordinator.job_token(secret).await?.is_none()
        {
            return Err(Failure::new(
                ErrorCode::LeaseLost,
                "the lease that this token came with is over; nothing more is taken under it",
            ));
        }
        match Caller::from_request_parts(parts, app).await? {
            Caller::Job(fence) => Ok(Self { own: Some(fence) }),
            caller if caller.has(Execute::ROLES) => Ok(Self { own: None }),
            caller => Err(forbidden(&caller, Execute::ROLES)),
        }
    }
}

/// Proof that the caller may read blobs: any token does.
pub(crate) struct MayReadBlobs;

impl FromRequestParts<Shared> for MayReadBlobs {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &Shared) -> Answer<Self> {
        Caller::from_request_parts(parts, app).await.map(|_| Self)
    }
}

fn forbidden(caller: &Caller, roles: &[Role]) -> Failure {
    let needed = roles.iter().map(|role| format!("`{role}`")).chain(["`admin`".to_owned()]).collect::<Vec<_>>();
    let has = match caller {
        Caller::Token { role, .. } => format!("this token's role is `{role}`"),
        Caller::Job(_) => "this is a job's own token, which opens that job's output and blobs alone".to_owned(),
        Caller::Anonymous => "nobody in particular".to_owned(),
    };
    Failure::new(ErrorCode::Forbidden, format!("{has}; this call needs {}", needed.join(" or ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_in_the_header() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer  abc "), Some("abc"));
        for header in ["", "Bearer", "Bearer ", "Basic abc", "abc"] {
            assert_eq!(bearer(header), None, "{header}");
        }
    }

    #[test]
    fn only_names_that_nobody_else_can_have_are_local() {
        for host in ["localhost", "LocalHost:8080", "localhost.", "127.0.0.1:8080", "[::1]:8080", "[::1]", "10.0.0.1"] {
            assert!(is_local(host), "{host}");
        }
        for host in ["evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "", "a b"]
        {
            assert!(!is_local(host), "{host}");
        }
    }

    #[test]
    fn each_role_has_its_rights_and_no_others() {
        let table = [
            (Role::Admin, [true, true, true, true]),
            (Role::Submit, [true, true, false, false]),
            (Role::Read, [true, false, false, false]),
            (Role::Execute, [false, false, true, false]),
        ];
        for (role, rights) in table {
            let caller = Caller::Token { role, tenant: Tenant::default(), name: None };
            let has = [Read::ROLES, Submit::ROLES, Execute::ROLES, Administer::ROLES].map(|roles| caller.has(roles));
            assert_eq!(has, rights, "{role}");
        }
    }
}
