//! `executr token`

use std::io::{self, IsTerminal as _, Write as _};

use executr_api::{Client as _, CreateToken, TokenView};

use crate::arguments::{OutputForm, TokenCommand, TokenPlaceArgs};
use crate::connection::connect;
use crate::errors::{Failure, Result};
use crate::exit::Exit;
use crate::show::{Align, Column, Table, ago, now, write_json};

pub(super) async fn token(command: TokenCommand) -> Result<Exit> {
    match command {
        TokenCommand::Create { role, name, tenant, expires_in, place } => {
            let expires_at = expires_in.map(|span| now().plus(span.0));
            create(CreateToken { role, name, tenant, expires_at }, &place).await
        }
        TokenCommand::List { place } => list(&place).await,
        TokenCommand::Revoke { id, place } => {
            let client = connect(&place.connection)?;
            client.revoke_token(id).await.map_err(|error| Failure::api(&error, Some(client.server())))?;
            Ok(Exit::SUCCESS)
        }
    }
}

async fn create(token: CreateToken, place: &TokenPlaceArgs) -> Result<Exit> {
    let client = connect(&place.connection)?;
    let token = client.create_token(token).await.map_err(|error| Failure::api(&error, Some(client.server())))?;
    let mut out = io::stdout().lock();
    match place.output {
        OutputForm::Json => write_json(&mut out, &token)?,
        OutputForm::Table => {
            writeln!(out, "{}", token.secret)?;
            if out.is_terminal() {
                drop(writeln!(io::stderr(), "it is shown this once; keep it in a file only its user can read"));
            }
        }
    }
    Ok(Exit::SUCCESS)
}

async fn list(place: &TokenPlaceArgs) -> Result<Exit> {
    let client = connect(&place.connection)?;
    let tokens = client.tokens().await.map_err(|error| Failure::api(&error, Some(client.server())))?;
    match place.output {
        OutputForm::Json => write_json(&mut io::stdout().lock(), &tokens)?,
        OutputForm::Table => table(&tokens).print()?,
    }
    Ok(Exit::SUCCESS)
}

fn table(tokens: &[TokenView]) -> Table {
    let mut table = Table::new(&[
        Column::new("ID", Align::Left),
        Column::new("ROLE", Align::Left),
        Column::new("NAME", Align::Left),
        Column::new("TENANT", Align::Left),
        Column::new("CREATED", Align::Left),
        Column::new("EXPIRES", Align::Left),
    ]);
    let now = now();
    for token in tokens {
        table.row(vec![
            token.id.into(),
            token.role.into(),
            token.name.as_deref().unwrap_or_default().into(),
            (&token.tenant).into(),
            ago(token.created_at, now).into(),
            token.expires_at.map_or("never".to_owned(), |time| ago(time, now)).into(),
        ]);
    }
    table
}
