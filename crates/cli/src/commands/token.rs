//! `executr token`

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;

use executr_api::{ApiError, Client, CreateToken, TokenView};
use executr_coordinator::{Coordinator, Options, Unobserved};
use executr_spec::Tenant;

use crate::arguments::{DatabasePlace, OutputForm, TokenCommand, TokenPlaceArgs};
use crate::connection::connect;
use crate::errors::{Failure, Result};
use crate::exit::Exit;
use crate::services;
use crate::show::{Align, Column, Table, ago, now, write_json};

/// Where tokens are kept: behind a server, or in a database that is opened for this.
struct Tokens {
    client: Box<dyn Client>,
    server: Option<String>,
}

impl Tokens {
    async fn open(place: &TokenPlaceArgs) -> Result<Self> {
        if !place.database.is_given() {
            let client = connect(&place.connection)?;
            let server = Some(client.server().to_owned());
            return Ok(Self { client: Box::new(client), server });
        }
        let locked = |failure: Failure| failure.remedy("while a server uses it, ask that server: name no database");
        let database = services::place(&place.database)?;
        let store = services::open(&database).await.map_err(|failure| match database {
            DatabasePlace::Embedded(_) => locked(failure),
            DatabasePlace::Postgres(_) => failure,
        })?;
        let coordinator = Coordinator::start(store, Options::default(), Arc::new(Unobserved)).await;
        let coordinator = coordinator.map_err(|error| Failure::api(&error, None))?;
        Ok(Self { client: Box::new(coordinator.client(Tenant::default())), server: None })
    }

    fn failure(&self, error: &ApiError) -> Failure {
        Failure::api(error, self.server.as_deref())
    }
}

pub(super) async fn token(command: TokenCommand) -> Result<Exit> {
    match command {
        TokenCommand::Create { role, name, tenant, expires_in, place } => {
            let expires_at = expires_in.map(|span| now().plus(span.0));
            create(CreateToken { role, name, tenant, expires_at }, &place).await
        }
        TokenCommand::List { place } => list(&place).await,
        TokenCommand::Revoke { id, place } => {
            let tokens = Tokens::open(&place).await?;
            tokens.client.revoke_token(id).await.map_err(|error| tokens.failure(&error))?;
            Ok(Exit::SUCCESS)
        }
    }
}

async fn create(token: CreateToken, place: &TokenPlaceArgs) -> Result<Exit> {
    let tokens = Tokens::open(place).await?;
    let token = tokens.client.create_token(token).await.map_err(|error| tokens.failure(&error))?;
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
    let tokens = Tokens::open(place).await?;
    let tokens = tokens.client.tokens().await.map_err(|error| tokens.failure(&error))?;
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
