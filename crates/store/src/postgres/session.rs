//! One connection to the database and the statements prepared on it.

use std::borrow::Cow;
use std::collections::HashMap;

use executr_spec::Timestamp;
use futures_util::future::{try_join, try_join_all};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, SimpleQueryMessage, Statement};

use super::address::Address;
use super::fault::Fault;
use crate::StoreError;

/// The oldest server, as `server_version_num` has it.
const OLDEST_SERVER: i64 = 150_000;

/// What every connection is told first. Plans are made once for all values, and always by index: tables that are empty
/// when a plan is made are not small for long. A session that hangs in a transaction would block others. What was
/// answered is on disk, whatever the database's or the role's own setting says.
const SETTINGS: &str = "SET client_encoding = 'UTF8'; SET default_transaction_isolation = 'read committed'; \
     SET default_transaction_read_only = off; SET synchronous_commit = on; SET plan_cache_mode = force_generic_plan; SET jit = off; \
     SET enable_seqscan = off; SET enable_sort = off; SET enable_incremental_sort = off; SET enable_hashjoin = off; \
     SET enable_mergejoin = off; SET enable_bitmapscan = off; SET enable_memoize = off; \
     SET statement_timeout = '60s'; SET idle_in_transaction_session_timeout = '60s'; SET client_min_messages = warning";

/// Begins a transaction and tells the time.
const BEGIN: &str = "BEGIN; SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

/// Values for a statement.
pub(super) type Values<'a> = &'a [&'a (dyn ToSql + Sync)];

/// A statement and its values, to be sent together with others.
pub(super) struct Step<'a> {
    pub(super) sql: Cow<'static, str>,
    pub(super) values: Vec<&'a (dyn ToSql + Sync)>,
}

/// A connection.
pub(super) struct Session {
    client: Client,
    statements: HashMap<Cow<'static, str>, Statement>,
    /// In the middle of a transaction: not to be used by anyone else.
    in_transaction: bool,
}

impl Session {
    pub(super) async fn connect(address: &Address) -> Result<Self, Fault> {
        let client = address.client().await?;
        client.batch_execute(SETTINGS).await?;
        let rows = client.simple_query("SHOW server_version_num").await?;
        let version = first_value(&rows).unwrap_or_default();
        if version.parse::<i64>().unwrap_or(0) < OLDEST_SERVER {
            return Err(Fault::Refused(StoreError::Config(format!(
                "the database server is PostgreSQL {} ({}); Executr needs 15 or later: upgrade it",
                version.parse::<i64>().unwrap_or(0) / 10_000,
                address.place()
            ))));
        }
        Ok(Self { client, statements: HashMap::new(), in_transaction: false })
    }

    /// Whether somebody else may use it.
    pub(super) fn is_clean(&self) -> bool {
        !self.in_transaction && !self.client.is_closed()
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    async fn statement(&mut self, sql: Cow<'static, str>) -> Result<Statement, Fault> {
        if let Some(statement) = self.statements.get(&sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(&sql).await?;
        self.statements.insert(sql, statement.clone());
        Ok(statement)
    }

    /// All rows of a statement.
    pub(super) async fn rows(
        &mut self,
        sql: impl Into<Cow<'static, str>>,
        values: Values<'_>,
    ) -> Result<Vec<Row>, Fault> {
        let statement = self.statement(sql.into()).await?;
        Ok(self.client.query(&statement, values).await?)
    }

    /// The only row of a statement, if there is one.
    pub(super) async fn row(
        &mut self,
        sql: impl Into<Cow<'static, str>>,
        values: Values<'_>,
    ) -> Result<Option<Row>, Fault> {
        Ok(self.rows(sql, values).await?.into_iter().next())
    }

    /// How many rows a statement changed.
    pub(super) async fn run(&mut self, sql: impl Into<Cow<'static, str>>, values: Values<'_>) -> Result<u64, Fault> {
        let statement = self.statement(sql.into()).await?;
        Ok(self.client.execute(&statement, values).await?)
    }

    /// Sends all statements at once and waits for all of them.
    pub(super) async fn run_all(&mut self, steps: Vec<Step<'_>>) -> Result<(), Fault> {
        let prepared = self.prepare_all(steps).await?;
        execute_all(&self.client, &prepared).await?;
        Ok(())
    }

    /// Sends all statements and then the one whose rows are wanted, all at once.
    pub(super) async fn run_all_and_read(
        &mut self,
        steps: Vec<Step<'_>>,
        sql: impl Into<Cow<'static, str>>,
        values: Values<'_>,
    ) -> Result<Vec<Row>, Fault> {
        let prepared = self.prepare_all(steps).await?;
        let statement = self.statement(sql.into()).await?;
        let ((), rows) = try_join(execute_all(&self.client, &prepared), self.client.query(&statement, values)).await?;
        Ok(rows)
    }

    async fn prepare_all<'a>(&mut self, steps: Vec<Step<'a>>) -> Result<Vec<Prepared<'a>>, Fault> {
        let mut prepared = Vec::with_capacity(steps.len());
        for step in steps {
            prepared.push((self.statement(step.sql).await?, step.values));
        }
        Ok(prepared)
    }

    /// Sends all statements at once and returns the rows of each.
    pub(super) async fn read_all(&mut self, steps: Vec<Step<'_>>) -> Result<Vec<Vec<Row>>, Fault> {
        let prepared = self.prepare_all(steps).await?;
        Ok(try_join_all(prepared.iter().map(|(statement, values)| self.client.query(statement, values))).await?)
    }

    /// Begins a transaction and returns its time by the store's clock.
    pub(super) async fn begin(&mut self, offset: i64) -> Result<Timestamp, Fault> {
        self.in_transaction = true;
        let rows = self.client.simple_query(BEGIN).await?;
        time(&rows, offset)
    }

    /// The same, and reads something in it at once.
    pub(super) async fn begin_and_read(
        &mut self,
        offset: i64,
        sql: impl Into<Cow<'static, str>>,
        values: Values<'_>,
    ) -> Result<(Timestamp, Vec<Row>), Fault> {
        let statement = self.statement(sql.into()).await?;
        self.in_transaction = true;
        let (begun, rows) = try_join(self.client.simple_query(BEGIN), self.client.query(&statement, values)).await?;
        Ok((time(&begun, offset)?, rows))
    }

    /// Commits: when this returns, it is on the disk.
    pub(super) async fn commit(&mut self) -> Result<(), Fault> {
        self.client.batch_execute("COMMIT").await?;
        self.in_transaction = false;
        Ok(())
    }

    /// Gives up a transaction after an error, so that the connection can be used again.
    pub(super) async fn roll_back(&mut self) {
        if self.in_transaction && self.client.batch_execute("ROLLBACK").await.is_ok() {
            self.in_transaction = false;
        }
    }
}

/// A statement that the server knows, and its values.
type Prepared<'a> = (Statement, Vec<&'a (dyn ToSql + Sync)>);

async fn execute_all(client: &Client, prepared: &[Prepared<'_>]) -> Result<(), tokio_postgres::Error> {
    try_join_all(prepared.iter().map(|(statement, values)| client.execute_raw(statement, values.iter().copied())))
        .await?;
    Ok(())
}

/// Builds a [`Step`].
macro_rules! step {
    ($sql:expr $(, $value:expr)* $(,)?) => {
        $crate::postgres::session::Step { sql: $sql.into(), values: vec![$($value as &(dyn tokio_postgres::types::ToSql + Sync)),*] }
    };
}
pub(super) use step;

fn time(begun: &[SimpleQueryMessage], offset: i64) -> Result<Timestamp, Fault> {
    let now = first_value(begun).and_then(|text| text.parse::<i64>().ok());
    let now = now.ok_or_else(|| Fault::Refused(StoreError::Database("it has no clock".to_owned())))?;
    Ok(Timestamp(now + offset))
}

fn first_value(messages: &[SimpleQueryMessage]) -> Option<String> {
    messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    })
}
