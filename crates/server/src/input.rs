//! What stands in the address: the path's segments and the query.

use std::fmt::Display;
use std::str::FromStr;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use executr_api::ErrorCode;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};

use crate::app::Shared;
use crate::failure::{Answer, Failure};

/// The one variable segment of a path.
pub(crate) struct Segment<T>(pub(crate) T);

impl<T: FromStr<Err: Display>> FromRequestParts<Shared> for Segment<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &Shared) -> Answer<Self> {
        let Path(text) = Path::<String>::from_request_parts(parts, app)
            .await
            .map_err(|rejection| Failure::new(ErrorCode::BadRequest, rejection.body_text()))?;
        text.parse().map(Self).map_err(|error| {
            Failure::new(ErrorCode::BadRequest, format!("`{}` can't stand in this path: {error}", text.escape_debug()))
        })
    }
}

/// A number that databases can take: they know no larger ones than 2⁶³ − 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position(pub(crate) u64);

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u64::deserialize(deserializer)?;
        if number > i64::MAX as u64 {
            return Err(D::Error::custom(format!("{number} is too large; at most {} is taken", i64::MAX)));
        }
        Ok(Self(number))
    }
}

/// The query.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequestParts<Shared> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &Shared) -> Answer<Self> {
        axum::extract::Query::<T>::from_request_parts(parts, app)
            .await
            .map(|axum::extract::Query(query)| Self(query))
            .map_err(|rejection| Failure::new(ErrorCode::BadRequest, rejection.body_text()))
    }
}
