//! What attempts print.
//!
//! Chunks of records stand in one table for each day, that of the attempt's start, and are removed with the whole table
//! once no job of that time is kept. Sealing changes nothing: the tables stay where the output is read from, so that all
//! servers on the database see it, and it doesn't have to be written twice.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use executr_api::output::{OutputChunk, RECORD_HEADER, Record, RecordWriter, Records};
use executr_api::{Fence, failpoint};
use executr_spec::JobId;
use uuid::Uuid;

use super::coding::{signed, unsigned};
use super::core::Core;
use super::fault::Fault;
use super::gather::Answers;
use super::lease::{LeaseRow, lease_columns};
use super::session::Session;
use crate::{AppendAnswer, OutputSlice};

const DAY: i64 = 86_400_000_000;
/// So many encoded bytes stand in one row, about.
const ROW: usize = 256 << 10;
/// So many rows are looked at in one read.
const MOST_ROWS: i64 = 256;
/// The lock under which tables of days are made.
const DAY_LOCK: i64 = super::registry::BUCKET_LOCK + 1;
/// By so much, in microseconds, the order of submission may differ from that of time.
const SLACK: i64 = 3_600_000_000;

/// The day of an attempt's start.
fn day(started_at: i64) -> i32 {
    i32::try_from(started_at.div_euclid(DAY)).unwrap_or(i32::MAX)
}

/// The days whose tables are known to be there.
#[derive(Default)]
pub(super) struct Days(Mutex<HashSet<i32>>);

impl Days {
    fn has(&self, day: i32) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&day)
    }

    fn add(&self, day: i32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(day);
    }

    pub(super) fn remove(&self, day: i32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&day);
    }
}

/// Pieces of output, by the day of their table.
#[derive(Default)]
pub(super) struct Pieces(BTreeMap<i32, Columns>);

#[derive(Default)]
struct Columns {
    seq: Vec<i64>,
    attempt: Vec<i32>,
    start: Vec<i64>,
    stop: Vec<i64>,
    bytes: Vec<Bytes>,
}

impl Pieces {
    /// Adds `records`, the first of which stands where the lease's output ends; returns where it ends then.
    fn add(&mut self, lease: &LeaseRow, records: &Records) -> i64 {
        let columns = self.0.entry(day(lease.started_at)).or_default();
        let mut end = lease.output_end;
        for (bytes, span) in split(records) {
            columns.seq.push(lease.place.seq);
            columns.attempt.push(lease.counts.attempt);
            columns.start.push(end);
            end = end.saturating_add(signed(span));
            columns.stop.push(end);
            columns.bytes.push(bytes);
        }
        end
    }

    /// Adds the chunk that came with a result: what is missing before it becomes a gap. Returns where the output ends then.
    pub(super) fn add_last(&mut self, lease: &LeaseRow, chunk: &OutputChunk) -> i64 {
        let end = unsigned(lease.output_end);
        let records = if chunk.offset <= end {
            chunk.records.skip(end - chunk.offset)
        } else if chunk.records.is_empty() {
            return lease.output_end;
        } else {
            let mut writer = RecordWriter::default();
            writer.gap(chunk.offset - end);
            let gap = writer.take();
            Records::trusted([&gap.as_bytes()[..], &chunk.records.as_bytes()[..]].concat().into())
        };
        self.add(lease, &records)
    }

    /// Writes them all, making the tables of new days.
    pub(super) async fn write(&self, core: &Core, session: &mut Session) -> Result<(), Fault> {
        for (day, columns) in self.0.iter().filter(|(_, columns)| !columns.seq.is_empty()) {
            if !core.days.has(*day) {
                make_day(session, *day).await?;
                core.days.add(*day);
            }
            let sql = format!(
                "INSERT INTO executr.output_{day} (seq, attempt, start, stop, bytes)
                 SELECT * FROM unnest($1::bigint[], $2::int[], $3::bigint[], $4::bigint[], $5::bytea[])"
            );
            let bytes: Vec<&[u8]> = columns.bytes.iter().map(|bytes| &bytes[..]).collect();
            let written =
                session.run(sql, &[&columns.seq, &columns.attempt, &columns.start, &columns.stop, &bytes]).await;
            written.map_err(|fault| match fault {
                // Another process removed it since it was last seen here.
                Fault::NoTable(told) => {
                    core.days.remove(*day);
                    Fault::Again(told)
                }
                other => other,
            })?;
        }
        Ok(())
    }
}

/// Parts of about [`ROW`] bytes with whole records, and how many positions each covers.
fn split(records: &Records) -> Vec<(Bytes, u64)> {
    let all = records.as_bytes();
    let mut parts = Vec::new();
    let (mut from, mut to, mut span) = (0, 0, 0);
    for record in records.iter() {
        to += RECORD_HEADER
            + match &record {
                Record::Data { bytes, .. } => bytes.len(),
                Record::Gap(_) => size_of::<u64>(),
            };
        span += record.span();
        if to - from >= ROW {
            parts.push((all.slice(from..to), std::mem::take(&mut span)));
            from = to;
        }
    }
    if to > from {
        parts.push((all.slice(from..to), span));
    }
    parts
}

/// Makes the table of a day. Part of the transaction that first needs it.
async fn make_day(session: &mut Session, day: i32) -> Result<(), Fault> {
    session.rows("SELECT pg_advisory_xact_lock($1)", &[&DAY_LOCK]).await?;
    let sql = format!(
        "CREATE TABLE IF NOT EXISTS executr.output_{day} (
             seq bigint NOT NULL, attempt integer NOT NULL, start bigint NOT NULL, stop bigint NOT NULL,
             bytes bytea NOT NULL, PRIMARY KEY (seq, attempt, start));
         ALTER TABLE executr.output_{day} ALTER COLUMN bytes SET STORAGE EXTERNAL;
         INSERT INTO executr.output_day (day) VALUES ({day}) ON CONFLICT DO NOTHING"
    );
    Ok(session.client().batch_execute(&sql).await?)
}

/// Output to append, under which lease.
pub(super) type Append = (Fence, OutputChunk);

/// Appends output of running attempts. Not synced: what the end of the server takes along is sent again.
pub(super) async fn append(
    core: &Core,
    session: &mut Session,
    requests: &[Append],
) -> Result<Answers<AppendAnswer>, Fault> {
    session.begin(core.clock_offset()).await?;
    session.client().batch_execute("SET LOCAL synchronous_commit = off").await?;
    let jobs: Vec<Uuid> = requests.iter().map(|(fence, _)| fence.job.0).collect();
    let sql =
        concat!("SELECT ", lease_columns!(), " FROM executr.lease l WHERE l.job = ANY($1) ORDER BY l.job FOR UPDATE");
    let rows = session.rows(sql, &[&jobs]).await?;
    let mut leases: HashMap<Fence, LeaseRow> =
        rows.iter().map(|row| LeaseRow::read(row, 0)).map(|lease| (lease.fence(), lease)).collect();
    let mut pieces = Pieces::default();
    let mut changed = BTreeMap::new();
    let mut answers = Vec::with_capacity(requests.len());
    for (fence, chunk) in requests {
        let Some(lease) = leases.get_mut(fence) else {
            answers.push(Ok(AppendAnswer::LeaseLost));
            continue;
        };
        let end = unsigned(lease.output_end);
        if chunk.offset > end {
            answers.push(Ok(AppendAnswer::Gap { end }));
            continue;
        }
        lease.output_end = pieces.add(lease, &chunk.records.skip(end - chunk.offset));
        changed.insert(lease.job, lease.output_end);
        answers.push(Ok(AppendAnswer::Appended { end: unsigned(lease.output_end) }));
    }
    pieces.write(core, session).await?;
    let (ids, ends): (Vec<Uuid>, Vec<i64>) = changed.into_iter().unzip();
    if !ids.is_empty() {
        session
            .run(
                "UPDATE executr.lease l SET output_end = new.stop
                 FROM unnest($1::uuid[], $2::bigint[]) AS new (job, stop) WHERE l.job = new.job",
                &[&ids, &ends],
            )
            .await?;
    }
    session.commit().await?;
    failpoint::pass("output.after-append");
    Ok(answers)
}

/// Which output to read.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub(super) job: JobId,
    pub(super) attempt: u32,
    pub(super) offset: u64,
    pub(super) max_bytes: usize,
}

/// Reads output. What is missing of a sealed attempt's was deleted and reads as a gap.
pub(super) async fn read(session: &mut Session, wanted: Wanted) -> Result<Option<OutputSlice>, Fault> {
    let attempt = i32::try_from(wanted.attempt).unwrap_or(i32::MAX);
    let row = session
        .row(
            "SELECT j.seq, coalesce(a.started_at, l.started_at), coalesce(a.output_bytes, l.output_end), l.job IS NULL
             FROM executr.job j
             LEFT JOIN executr.lease l ON l.job = j.id AND l.attempt = $2
             LEFT JOIN executr.all_attempts a ON a.seq = j.seq AND a.attempt = $2
             WHERE j.id = $1 AND (l.job IS NOT NULL OR a.seq IS NOT NULL)",
            &[&wanted.job.0, &attempt],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let (seq, sealed): (i64, bool) = (row.get(0), row.get(3));
    let mut end = unsigned(row.get(2));
    let table = format!("executr.output_{}", day(row.get(1)));
    let mut writer = RecordWriter::default();
    let mut at = wanted.offset;
    let full = |writer: &RecordWriter| !writer.is_empty() && writer.len() >= wanted.max_bytes;
    loop {
        let page = page(session, &table, seq, attempt, at, wanted.max_bytes).await?;
        for (start, bytes) in &page.rows {
            if *start > at && sealed && !full(&writer) {
                writer.gap(*start - at);
                at = *start;
            }
            let mut before = *start;
            for record in Records::trusted(bytes.clone()).iter() {
                let from = before;
                before += record.span();
                if before <= at {
                    continue;
                }
                if full(&writer) {
                    break;
                }
                let skip = at - from;
                match &record {
                    Record::Gap(skipped) => writer.gap(skipped - skip),
                    // Within a record, so within memory.
                    Record::Data { stream, bytes } => writer.push(*stream, &bytes[skip as usize..]),
                }
                at = before;
            }
        }
        end = end.max(at.min(page.stop));
        if page.is_last || full(&writer) {
            if page.is_last && sealed && at < end && !full(&writer) {
                writer.gap(end - at);
            }
            break;
        }
    }
    Ok(Some(OutputSlice { records: writer.take(), end, sealed }))
}

/// Some rows of output, from the one that holds a position on.
#[derive(Default)]
struct Page {
    rows: Vec<(u64, Bytes)>,
    /// Where the last of them ends.
    stop: u64,
    is_last: bool,
}

async fn page(
    session: &mut Session,
    table: &str,
    seq: i64,
    attempt: i32,
    at: u64,
    max_bytes: usize,
) -> Result<Page, Fault> {
    let sql = format!(
        "SELECT start, stop, octet_length(bytes) FROM {table}
         WHERE seq = $1 AND attempt = $2 AND stop > $3 AND start >= coalesce(
             (SELECT start FROM {table} WHERE seq = $1 AND attempt = $2 AND start <= $3 ORDER BY start DESC LIMIT 1), 0)
         ORDER BY start LIMIT $4"
    );
    let rows = match session.rows(sql, &[&seq, &attempt, &signed(at), &MOST_ROWS]).await {
        Ok(rows) => rows,
        // No table: nothing was printed on that day, or all of it is deleted.
        Err(Fault::NoTable(_)) => {
            return Ok(Page { is_last: true, ..Page::default() });
        }
        Err(fault) => return Err(fault),
    };
    // The first row counts little: most of it may lie before the position.
    let mut total = 0;
    let mut count = 0;
    for (index, row) in rows.iter().enumerate() {
        count += 1;
        if index > 0 {
            total += usize::try_from(row.get::<_, i32>(2)).unwrap_or(0);
        }
        if total >= max_bytes {
            break;
        }
    }
    let (Some(first), Some(last)) = (rows.first(), rows.get(count.max(1) - 1)) else {
        return Ok(Page { is_last: true, ..Page::default() });
    };
    let (from, to): (i64, i64) = (first.get(0), last.get(0));
    let sql = format!(
        "SELECT start, bytes FROM {table} WHERE seq = $1 AND attempt = $2 AND start BETWEEN $3 AND $4 ORDER BY start"
    );
    let bytes = session.rows(sql, &[&seq, &attempt, &from, &to]).await?;
    Ok(Page {
        rows: bytes.iter().map(|row| (unsigned(row.get(0)), Bytes::copy_from_slice(row.get(1)))).collect(),
        stop: unsigned(last.get(1)),
        is_last: count == rows.len() && (rows.len() as i64) < MOST_ROWS,
    })
}

/// Removes the tables of days of which no job is kept any more. Jobs are looked at by their submission only: one that
/// waits for long keeps the output of others as long.
pub(super) async fn drop_days(core: &Core, session: &mut Session) -> Result<(), Fault> {
    let rows = session
        .rows(
            "SELECT day, (SELECT created_at FROM executr.job ORDER BY seq LIMIT 1) FROM executr.output_day ORDER BY day",
            &[],
        )
        .await?;
    let now = session.begin(core.clock_offset()).await?;
    session.roll_back().await;
    for row in rows {
        let over: i32 = row.get(0);
        // Jobs of several coordinators are numbered in about the order of their times.
        let oldest = row.get::<_, Option<i64>>(1).unwrap_or(now.0).min(now.0) - SLACK;
        if day(oldest) <= over {
            break;
        }
        session.begin(0).await?;
        let sql =
            format!("DROP TABLE IF EXISTS executr.output_{over}; DELETE FROM executr.output_day WHERE day = {over}");
        session.client().batch_execute(&sql).await?;
        session.commit().await?;
        core.days.remove(over);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use executr_api::output::Stream;

    use super::*;

    #[test]
    fn long_output_is_split_between_records() {
        let mut writer = RecordWriter::default();
        for _ in 0..10 {
            writer.push(Stream::Stdout, &[b'x'; ROW / 3]);
        }
        writer.gap(7);
        let records = writer.take();
        let parts = split(&records);
        assert_eq!(parts.len(), 4);
        assert_eq!(parts.iter().map(|(_, span)| span).sum::<u64>(), records.span());
        let whole: Vec<u8> = parts.iter().flat_map(|(bytes, _)| bytes.to_vec()).collect();
        assert_eq!(whole, records.as_bytes()[..]);
        assert!(parts.iter().all(|(bytes, _)| Records::parse(bytes.clone()).is_ok()));
    }
}
