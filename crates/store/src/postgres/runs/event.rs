//! What happened in runs, numbered without gaps.

use executr_api::{RunEvent, RunEventKind};
use executr_spec::{RunId, Timestamp};

use super::locked::Runs;
use super::work::Work;
use crate::RunProgress;
use crate::postgres::change::Change;
use crate::postgres::coding::{from_json, json, signed, unsigned};
use crate::postgres::core::Core;
use crate::postgres::fault::Fault;
use crate::postgres::permits::Permits;
use crate::postgres::session::{Session, Step, step};

/// An event that is to be written.
pub(super) struct Told {
    pub(super) run: i64,
    pub(super) number: i64,
    pub(super) at: i64,
    pub(super) kind: String,
}

impl Runs {
    /// Writes an event.
    pub(super) fn tell(
        &mut self,
        seq: i64,
        kind: &RunEventKind,
        at: Timestamp,
        progress: &mut RunProgress,
    ) -> Result<(), Fault> {
        self.number(seq, json(kind)?, at.0)?;
        let id = self.run(seq)?.id;
        if let Err(at) = progress.changed.binary_search(&id) {
            progress.changed.insert(at, id);
        }
        Ok(())
    }

    fn number(&mut self, seq: i64, kind: String, at: i64) -> Result<(), Fault> {
        let run = self.run(seq)?;
        run.last_event += 1;
        run.changed = true;
        let number = run.last_event;
        self.told.push(Told { run: seq, number, at, kind });
        Ok(())
    }

    /// Gives numbers to what claims had to tell of the locked runs.
    pub(super) async fn take_news(&mut self, session: &mut Session) -> Result<(), Fault> {
        if self.runs.is_empty() {
            return Ok(());
        }
        let seqs: Vec<i64> = self.runs.keys().copied().collect();
        let rows = session
            .rows(
                "WITH gone AS (DELETE FROM executr.run_news WHERE run = ANY($1) RETURNING id, run, at, kind)
                 SELECT run, at, kind FROM gone ORDER BY id",
                &[&seqs],
            )
            .await?;
        for row in rows {
            let (seq, at): (i64, i64) = (row.get(0), row.get(1));
            self.run(seq)?.started_at.get_or_insert(at);
            self.number(seq, row.get(2), at)?;
        }
        Ok(())
    }
}

/// What a claim has to tell of runs that it doesn't lock.
#[derive(Default)]
pub(in crate::postgres) struct News {
    run: Vec<i64>,
    kind: Vec<String>,
}

impl News {
    pub(super) fn tell(&mut self, run: i64, kind: &RunEventKind) -> Result<(), Fault> {
        self.run.push(run);
        self.kind.push(json(kind)?);
        Ok(())
    }

    pub(in crate::postgres) fn step<'a>(&'a self, now: &'a i64) -> Option<Step<'a>> {
        (!self.run.is_empty()).then(|| {
            step!(
                "INSERT INTO executr.run_news (run, at, kind)
                 SELECT run, $3, kind FROM unnest($1::bigint[], $2::text[]) WITH ORDINALITY AS new (run, kind, n)
                 ORDER BY n",
                &self.run,
                &self.kind,
                now
            )
        })
    }
}

/// Which events to read.
pub(super) type Wanted = (RunId, u64, u32);

/// Events of a run after a number, in order.
pub(super) async fn read(core: &Core, session: &mut Session, wanted: &Wanted) -> Result<Vec<RunEvent>, Fault> {
    let (run, after, limit) = wanted;
    let row = session
        .row(
            "SELECT seq, EXISTS (SELECT FROM executr.run_news n WHERE n.run = r.seq) FROM executr.run r
             WHERE id = $1 AND NOT deleted",
            &[&run.0],
        )
        .await?;
    let Some(row) = row else { return Ok(Vec::new()) };
    let seq: i64 = row.get(0);
    if row.get(1) {
        number_news(core, session, seq).await?;
    }
    let rows = session
        .rows(
            "SELECT number, at, kind FROM executr.run_event WHERE run = $1 AND number > $2 ORDER BY number LIMIT $3",
            &[&seq, &signed(*after), &i64::from(*limit)],
        )
        .await?;
    let event = |row: &tokio_postgres::Row| {
        Ok(RunEvent { number: unsigned(row.get(0)), at: Timestamp(row.get(1)), kind: from_json(row.get(2))? })
    };
    rows.iter().map(event).collect()
}

/// Whoever wants to see them gives them their numbers, if nobody did so before.
async fn number_news(core: &Core, session: &mut Session, seq: i64) -> Result<(), Fault> {
    let now = session.begin(core.clock_offset()).await?;
    let mut runs = Runs::lock(session, &[seq]).await?;
    let (mut change, mut permits) = (Change::default(), Permits::default());
    let mut work = Work { core, session, change: &mut change, permits: &mut permits, now };
    runs.write(&mut work).await?;
    session.commit().await
}
