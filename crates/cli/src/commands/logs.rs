//! `executr logs`

use executr_api::{Client as _, OutputFollow};

use super::follow::{Stop, show};
use crate::arguments::LogsArgs;
use crate::connection::connect;
use crate::errors::{Failure, Result};
use crate::exit::Exit;

pub(super) async fn logs(arguments: LogsArgs) -> Result<Exit> {
    let client = connect(&arguments.connection)?;
    let told = |error| Failure::api(&error, Some(client.server()));
    let asked = OutputFollow { attempt: arguments.attempt, offset: 0, follow: arguments.follow };
    let output = client.output(arguments.id, asked).await.map_err(told)?;
    match show(output, arguments.stream).await {
        Stop::End(_) => Ok(Exit::SUCCESS),
        Stop::Api(error) => Err(told(error)),
        Stop::Write(error) => Err(error.into()),
    }
}
