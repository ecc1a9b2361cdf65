//! `executr migrate`

use crate::arguments::DatabaseArgs;
use crate::errors::Result;
use crate::exit::Exit;
use crate::services;

/// Opening a database brings it up to date.
pub(super) async fn migrate(arguments: &DatabaseArgs) -> Result<Exit> {
    services::open(&services::place(arguments)?).await?;
    Ok(Exit::SUCCESS)
}
