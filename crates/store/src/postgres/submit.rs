//! Recording jobs.

use std::collections::{BTreeMap, HashMap, HashSet};

use executr_api::{JobState, failpoint};
use executr_spec::{Backoff, JobId, QueueName, RequirementClass, Timestamp};
use uuid::Uuid;

use super::change::{Change, Counts, Place, readied};
use super::coding::json;
use super::core::Core;
use super::fault::Fault;
use super::gather::Answers;
use super::job;
use super::permits::Permits;
use super::registry::Bucket;
use super::session::{Session, Step, step};
use crate::{NewJob, StoreError, SubmitAnswer, Submitted};

type Key<'a> = (&'a str, &'a str);

/// Records the jobs of several callers, each caller's all or none.
pub(super) async fn submit(
    core: &Core,
    session: &mut Session,
    requests: &[Vec<NewJob>],
    again: bool,
) -> Result<Answers<SubmitAnswer>, Fault> {
    let all: Vec<&NewJob> = requests.iter().flatten().collect();
    let mut earlier = HashMap::new();
    find_keys(session, &all, &mut earlier).await?;
    let done = if again { known_ids(session, &all).await? } else { HashSet::new() };

    // What is asked for twice in this batch is recorded once.
    let mut first: HashMap<Key<'_>, JobId> = HashMap::new();
    let mut refused: HashMap<usize, StoreError> = HashMap::new();
    let mut new: Vec<&NewJob> = Vec::with_capacity(all.len());
    for (caller, jobs) in requests.iter().enumerate() {
        let mut own: Vec<(usize, &NewJob)> = Vec::with_capacity(jobs.len());
        let mut own_first: HashMap<Key<'_>, JobId> = HashMap::new();
        for (index, job) in jobs.iter().enumerate() {
            if done.contains(&job.id.0) {
                continue;
            }
            if let Some(key) = key(job) {
                if earlier.contains_key(&key) || first.contains_key(&key) || own_first.contains_key(&key) {
                    continue;
                }
                own_first.insert(key, job.id);
            }
            own.push((index, job));
        }
        match admit(core, session, &own).await? {
            Some(error) => drop(refused.insert(caller, error)),
            None => {
                new.extend(own.into_iter().map(|(_, job)| job));
                first.extend(own_first);
            }
        }
    }
    let (states, now) =
        if new.is_empty() { (HashMap::new(), Timestamp(0)) } else { record(core, session, &new).await? };

    // Where the earlier jobs stand, and those of a first try whose answer was lost.
    let mut ids: Vec<Uuid> = done.iter().copied().collect();
    for job in &all {
        if let Some(id) = key(job).and_then(|key| earlier.get(&key)) {
            ids.push(id.0);
        }
    }
    let mut records = HashMap::new();
    if !ids.is_empty() {
        for record in job::by_ids(core, session, &ids).await? {
            records.insert(record.id, (record.state, record.created_at));
        }
    }
    let mut answers = Vec::with_capacity(requests.len());
    for (caller, jobs) in requests.iter().enumerate() {
        if let Some(error) = refused.remove(&caller) {
            answers.push(Err(error));
            continue;
        }
        let mut answer = SubmitAnswer { jobs: Vec::with_capacity(jobs.len()), readied: Vec::new() };
        let mut freed = Vec::new();
        for job in jobs {
            if let Some((state, bucket)) = states.get(&job.id) {
                answer.jobs.push(Submitted { id: job.id, state: *state, existing: false, created_at: now });
                freed.extend((*state == JobState::Ready).then_some(*bucket));
                continue;
            }
            let mine = done.contains(&job.id.0);
            let other = key(job).and_then(|key| earlier.get(&key).or_else(|| first.get(&key))).copied();
            let id = if mine { job.id } else { other.unwrap_or(job.id) };
            let found = states.get(&id).map(|(state, _)| (*state, now)).or_else(|| records.get(&id).copied());
            // The earlier job was deleted in this moment: its key is free now.
            let Some((state, created_at)) = found else {
                return Err(Fault::Again(format!("the job {id} is being deleted")));
            };
            answer.jobs.push(Submitted { id, state, existing: !mine, created_at });
        }
        answer.readied = readied(core, freed);
        answers.push(Ok(answer));
    }
    Ok(answers)
}

fn key(job: &NewJob) -> Option<Key<'_>> {
    job.idempotency_key.as_deref().map(|key| (job.tenant.as_str(), key))
}

/// Finds the earlier jobs with these jobs' idempotency keys.
async fn find_keys<'a>(
    session: &mut Session,
    jobs: &[&'a NewJob],
    earlier: &mut HashMap<Key<'a>, JobId>,
) -> Result<(), Fault> {
    let keys: HashSet<Key<'a>> = jobs.iter().filter_map(|job| key(job)).collect();
    if keys.is_empty() {
        return Ok(());
    }
    let keys: Vec<Key<'a>> = keys.into_iter().collect();
    let (tenants, names): (Vec<&str>, Vec<&str>) = keys.iter().copied().unzip();
    let rows = session
        .rows(
            "SELECT asked.n, i.job FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS asked (tenant, key, n)
             JOIN executr.idempotency i ON i.tenant = asked.tenant AND i.key = asked.key",
            &[&tenants, &names],
        )
        .await?;
    for row in rows {
        let number = usize::try_from(row.get::<_, i64>(0) - 1).unwrap_or(usize::MAX);
        if let Some(key) = keys.get(number) {
            earlier.insert(*key, JobId(row.get(1)));
        }
    }
    Ok(())
}

/// Which of these ids are recorded already.
async fn known_ids(session: &mut Session, jobs: &[&NewJob]) -> Result<HashSet<Uuid>, Fault> {
    let ids: Vec<Uuid> = jobs.iter().map(|job| job.id.0).collect();
    let rows = session.rows("SELECT id FROM executr.job WHERE id = ANY($1)", &[&ids]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Checks one caller's jobs against the limit on classes.
pub(super) async fn admit(
    core: &Core,
    session: &mut Session,
    jobs: &[(usize, &NewJob)],
) -> Result<Option<StoreError>, Fault> {
    let mut by_queue: BTreeMap<&QueueName, Vec<(usize, &RequirementClass)>> = BTreeMap::new();
    for (index, job) in jobs {
        let classes = by_queue.entry(&job.queue).or_default();
        if classes.last().is_none_or(|(_, last)| *last != &job.class) {
            classes.push((*index, &job.class));
        }
    }
    let mut refused: Option<(usize, QueueName)> = None;
    for (queue, classes) in by_queue {
        let names: Vec<&RequirementClass> = classes.iter().map(|(_, class)| *class).collect();
        if let Err(at) = core.registry.admit(session, queue, &names).await? {
            let index = classes.get(at).map_or(0, |(index, _)| *index);
            if refused.as_ref().is_none_or(|(first, _)| index < *first) {
                refused = Some((index, queue.clone()));
            }
        }
    }
    Ok(refused.map(|(index, queue)| StoreError::TooManyClasses { index, queue }))
}

/// Where each new job stands, by its id, with its bucket; and when that was.
type Recorded = (HashMap<JobId, (JobState, i32)>, Timestamp);

/// Writes jobs that are new.
async fn record(core: &Core, session: &mut Session, new: &[&NewJob]) -> Result<Recorded, Fault> {
    let buckets: Vec<Bucket> = new.iter().map(|job| Bucket::of(job)).collect();
    let buckets = core.registry.ids(session, &buckets).await?;

    let now = session.begin(core.clock_offset()).await?;
    let count = new.len() as i64;
    let seqs: Vec<i64> = session
        .rows("SELECT nextval('executr.job_seq') FROM generate_series(1, $1::bigint)", &[&count])
        .await?
        .iter()
        .map(|row| row.get(0))
        .collect();
    let keys: Vec<(Key<'_>, Uuid)> = new.iter().filter_map(|job| Some((key(job)?, job.id.0))).collect();
    if !keys.is_empty() {
        insert_keys(session, &keys).await?;
    }
    let mut permits = Permits::default();
    let names: Vec<(&str, &str)> = new
        .iter()
        .filter_map(|job| job.concurrency.as_ref().map(|(key, _)| (job.tenant.as_str(), key.as_str())))
        .collect();
    let permit_ids = permits.lock_named(session, &names).await?;

    let mut change = Change::default();
    let mut states = HashMap::with_capacity(new.len());
    let mut permit_of = Vec::with_capacity(new.len());
    for ((job, seq), bucket) in new.iter().zip(&seqs).zip(&buckets) {
        let place = Place { seq: *seq, bucket: *bucket };
        let permit = job.concurrency.as_ref().and_then(|(key, limit)| {
            let name = (job.tenant.as_str().to_owned(), key.clone());
            permit_ids.get(&name).map(|id| (*id, i64::from(*limit)))
        });
        permit_of.push(permit);
        let state = match (job.run_at, permit) {
            (Some(at), _) if at > now => {
                change.scheduled(place, Counts::default(), at);
                JobState::Scheduled
            }
            (_, Some((id, limit))) if !permits.take(id, limit) => {
                change.blocked(place, Counts::default(), id, limit, job.priority.rank());
                JobState::Blocked
            }
            _ => {
                change.ready(place, Counts::default());
                JobState::Ready
            }
        };
        change.count(core, *bucket, None, Some(state));
        states.insert(job.id, (state, *bucket));
    }
    let columns = Columns::new(new, &seqs, &permit_of)?;
    let steps = columns.steps(&seqs, &buckets, &now.0);
    change.write(core, session, now, steps).await?;
    permits.write(session).await?;
    failpoint::pass("submit.before-commit");
    session.commit().await?;
    failpoint::pass("submit.after-commit");
    Ok((states, now))
}

/// Takes the idempotency keys; somebody else may have been faster since they were looked up.
async fn insert_keys(session: &mut Session, keys: &[(Key<'_>, Uuid)]) -> Result<(), Fault> {
    let mut keys = keys.to_vec();
    keys.sort_unstable();
    let tenants: Vec<&str> = keys.iter().map(|((tenant, _), _)| *tenant).collect();
    let names: Vec<&str> = keys.iter().map(|((_, key), _)| *key).collect();
    let jobs: Vec<Uuid> = keys.iter().map(|(_, job)| *job).collect();
    let taken = session
        .run(
            "INSERT INTO executr.idempotency (tenant, key, job)
             SELECT * FROM unnest($1::text[], $2::text[], $3::uuid[]) ON CONFLICT DO NOTHING",
            &[&tenants, &names, &jobs],
        )
        .await?;
    if taken != keys.len() as u64 {
        return Err(Fault::Again("an idempotency key was taken in this moment".to_owned()));
    }
    Ok(())
}

/// Jobs to record, column by column.
pub(super) struct Columns<'a> {
    id: Vec<Uuid>,
    job_type: Vec<&'a str>,
    max_retries: Vec<i64>,
    backoff: Vec<Option<String>>,
    idempotency_key: Vec<Option<&'a str>>,
    permit: Vec<Option<i64>>,
    permit_limit: Vec<Option<i64>>,
    blobs: Vec<bool>,
    spec: Vec<&'a str>,
    blob_digest: Vec<&'a [u8]>,
    blob_seq: Vec<i64>,
    run: Option<i64>,
    /// None at all stands for none of each.
    workspace: Vec<Option<i64>>,
}

impl<'a> Columns<'a> {
    pub(super) fn new(jobs: &[&'a NewJob], seqs: &[i64], permits: &[Option<(i64, i64)>]) -> Result<Self, Fault> {
        let backoff =
            jobs.iter().map(|job| (job.backoff != Backoff::default()).then(|| json(&job.backoff)).transpose());
        let named = || jobs.iter().zip(seqs).flat_map(|(job, seq)| job.blobs.iter().map(move |digest| (*seq, digest)));
        Ok(Self {
            id: jobs.iter().map(|job| job.id.0).collect(),
            job_type: jobs.iter().map(|job| job.job_type.as_str()).collect(),
            max_retries: jobs.iter().map(|job| i64::from(job.max_retries)).collect(),
            backoff: backoff.collect::<Result<_, _>>()?,
            idempotency_key: jobs.iter().map(|job| job.idempotency_key.as_deref()).collect(),
            permit: permits.iter().map(|permit| permit.map(|(id, _)| id)).collect(),
            permit_limit: permits.iter().map(|permit| permit.map(|(_, limit)| limit)).collect(),
            blobs: jobs.iter().map(|job| !job.blobs.is_empty()).collect(),
            spec: jobs.iter().map(|job| job.spec.as_str()).collect(),
            blob_digest: named().map(|(_, digest)| &digest.0[..]).collect(),
            blob_seq: named().map(|(seq, _)| seq).collect(),
            run: None,
            workspace: Vec::new(),
        })
    }

    /// They are jobs of this run, and use these workspaces.
    pub(super) fn of_run(mut self, run: i64, workspaces: impl Iterator<Item = Option<i64>>) -> Self {
        self.run = Some(run);
        self.workspace = workspaces.collect();
        self
    }

    pub(super) fn steps<'b>(&'b self, seqs: &'b Vec<i64>, buckets: &'b Vec<i32>, now: &'b i64) -> Vec<Step<'b>> {
        let mut steps = vec![step!(
            "INSERT INTO executr.job (created_at, run, seq, id, bucket, job_type, max_retries, backoff, idempotency_key,
                                      permit, permit_limit, blobs, spec, workspace)
             SELECT $12, $13, * FROM unnest($1::bigint[], $2::uuid[], $3::int[], $4::text[], $5::bigint[], $6::text[],
                                            $7::text[], $8::bigint[], $9::bigint[], $10::bool[], $11::text[],
                                            $14::bigint[])",
            seqs,
            &self.id,
            buckets,
            &self.job_type,
            &self.max_retries,
            &self.backoff,
            &self.idempotency_key,
            &self.permit,
            &self.permit_limit,
            &self.blobs,
            &self.spec,
            now,
            &self.run,
            &self.workspace
        )];
        if !self.blob_digest.is_empty() {
            steps.push(step!(
                "INSERT INTO executr.job_blob (digest, seq)
                 SELECT * FROM unnest($1::bytea[], $2::bigint[]) ON CONFLICT DO NOTHING",
                &self.blob_digest,
                &self.blob_seq
            ));
        }
        steps
    }
}
