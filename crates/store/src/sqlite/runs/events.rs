//! The events of runs.

use executr_api::{JobState, RunEvent, RunEventKind, RunState};
use executr_spec::{RunId, Timestamp, WorkerId};
use rusqlite::{Connection, Row, params};

use super::follow::Followed;
use super::live::Place;
use super::load::{run_state, run_state_code};
use crate::StoreError;
use crate::sqlite::error::damaged;
use crate::sqlite::query::collect;
use crate::sqlite::row::{get, integer, state, state_code, unsigned};
use crate::sqlite::writer::Writer;

/// An event, as it stands in its row.
#[derive(Clone, Copy, Debug, Default)]
struct Told<'a> {
    kind: u8,
    place: Option<u32>,
    state: Option<u8>,
    attempt: Option<u32>,
    exit_code: Option<i32>,
    detail: Option<&'a str>,
}

/// How a job ended, for its event.
#[derive(Clone, Copy, Debug)]
pub(in crate::sqlite) struct JobEnd<'a> {
    pub(in crate::sqlite) state: JobState,
    pub(in crate::sqlite) attempt: u32,
    pub(in crate::sqlite) exit_code: Option<i32>,
    pub(in crate::sqlite) message: Option<&'a str>,
}

const RUN_CREATED: u8 = 0;
const JOB_STARTED: u8 = 1;
const JOB_RETRYING: u8 = 2;
const JOB_ENDED: u8 = 3;
const RUN_CANCELLING: u8 = 4;
const RUN_ENDED: u8 = 5;

impl Writer<'_> {
    fn tell(&mut self, number: i64, told: Told<'_>, followed: &mut Followed) -> Result<(), StoreError> {
        let run = self.runs.get_mut(number)?;
        run.last_event += 1;
        let (event, id) = (run.last_event, run.id);
        followed.changed(id);
        self.execute(
            "INSERT INTO run_event VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            params![
                number,
                integer(event),
                self.now().0,
                told.kind,
                told.place,
                told.state,
                told.attempt,
                told.exit_code,
                told.detail
            ],
        )
        .map(drop)
    }

    pub(super) fn tell_created(&mut self, number: i64, followed: &mut Followed) -> Result<(), StoreError> {
        self.tell(number, Told { kind: RUN_CREATED, ..Told::default() }, followed)
    }

    pub(super) fn tell_started(
        &mut self,
        place: Place,
        attempt: u32,
        worker: &str,
        followed: &mut Followed,
    ) -> Result<(), StoreError> {
        let (index, attempt, detail) = (Some(place.index), Some(attempt), Some(worker));
        let told = Told { kind: JOB_STARTED, place: index, attempt, detail, ..Told::default() };
        self.tell(place.number, told, followed)
    }

    pub(super) fn tell_retrying(
        &mut self,
        place: Place,
        attempt: u32,
        detail: Option<&str>,
        followed: &mut Followed,
    ) -> Result<(), StoreError> {
        let told =
            Told { kind: JOB_RETRYING, place: Some(place.index), attempt: Some(attempt), detail, ..Told::default() };
        self.tell(place.number, told, followed)
    }

    pub(super) fn tell_ended(
        &mut self,
        place: Place,
        end: JobEnd<'_>,
        followed: &mut Followed,
    ) -> Result<(), StoreError> {
        let told = Told {
            kind: JOB_ENDED,
            place: Some(place.index),
            state: Some(state_code(end.state)),
            attempt: Some(end.attempt),
            exit_code: end.exit_code,
            detail: end.message,
        };
        self.tell(place.number, told, followed)
    }

    pub(super) fn tell_cancelling(
        &mut self,
        number: i64,
        reason: &str,
        followed: &mut Followed,
    ) -> Result<(), StoreError> {
        self.tell(number, Told { kind: RUN_CANCELLING, detail: Some(reason), ..Told::default() }, followed)
    }

    pub(super) fn tell_run_ended(
        &mut self,
        number: i64,
        state: RunState,
        followed: &mut Followed,
    ) -> Result<(), StoreError> {
        self.tell(number, Told { kind: RUN_ENDED, state: Some(run_state_code(state)), ..Told::default() }, followed)
    }
}

/// Events of a run after number `after`.
pub(super) fn events(connection: &Connection, run: RunId, after: u64, limit: u32) -> Result<Vec<RunEvent>, StoreError> {
    collect(
        connection,
        "SELECT e.event, e.at, e.kind, j.name, e.state, e.attempt, e.exit_code, e.detail
         FROM run r CROSS JOIN run_event e ON e.number = r.number LEFT JOIN run_job j ON j.seq = e.number + 1 + e.place
         WHERE r.id = ?1 AND NOT r.hidden AND e.event > ?2 ORDER BY e.event LIMIT ?3",
        params![run.0.as_bytes(), integer(after), limit],
        |row| Ok(RunEvent { number: unsigned(get(row, 0)?), at: Timestamp(get(row, 1)?), kind: kind(row)? }),
    )
}

fn kind(row: &Row<'_>) -> Result<RunEventKind, StoreError> {
    Ok(match get(row, 2)? {
        RUN_CREATED => RunEventKind::RunCreated,
        JOB_STARTED => {
            RunEventKind::JobStarted { job: get(row, 3)?, attempt: get(row, 5)?, worker: WorkerId(get(row, 7)?) }
        }
        JOB_RETRYING => RunEventKind::JobRetrying { job: get(row, 3)?, attempt: get(row, 5)?, message: get(row, 7)? },
        JOB_ENDED => RunEventKind::JobEnded {
            job: get(row, 3)?,
            state: state(get(row, 4)?)?,
            attempt: get(row, 5)?,
            exit_code: get(row, 6)?,
            message: get(row, 7)?,
        },
        RUN_CANCELLING => RunEventKind::RunCancelling { reason: get(row, 7)? },
        RUN_ENDED => RunEventKind::RunEnded { state: run_state(get(row, 4)?)? },
        other => return Err(damaged(format_args!("event {other}"))),
    })
}
