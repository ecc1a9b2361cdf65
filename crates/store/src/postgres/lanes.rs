//! Whose turn it is: which buckets of a queue may have jobs for a claim, tenant by tenant.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use executr_spec::QueueName;

use super::claim::Round;
use super::core::Core;
use super::fault::Fault;
use super::registry::ClassFilter;
use super::session::Session;
use crate::Claim;

/// With at most so many classes each is looked up by itself; with more, lanes are taken in their order and those of
/// other classes passed over.
const FEW_CLASSES: usize = 16;

/// A tenant's place in a priority of a queue.
pub(super) struct Lane {
    pub(super) turn: i64,
    pub(super) buckets: Vec<i32>,
}

/// The first lanes of a priority, in the order of their turns.
pub(super) struct Group {
    pub(super) lanes: Vec<Lane>,
    /// Whether these are all.
    pub(super) complete: bool,
    /// The latest turn of all lanes there are.
    pub(super) last_turn: i64,
}

/// The lanes of a queue that may have jobs for this claim, by priority. `None`: there are new buckets; ask again.
pub(super) async fn lanes(
    core: &Core,
    session: &mut Session,
    round: &Round,
    queue: &QueueName,
    claim: &Claim,
    limit: usize,
) -> Result<Option<Vec<Group>>, Fault> {
    const HEAD: &str = "SELECT top.id, top.turn, p.priority, lane.turn, lane.tenant, b.id, lane.found
         FROM (SELECT coalesce((SELECT max(id) FROM executr.bucket), 0) AS id,
                      (SELECT last_value FROM executr.turn) AS turn) AS top
         CROSS JOIN generate_series(0, 2) AS p (priority)
         LEFT JOIN LATERAL (SELECT DISTINCT turn, tenant, count(*) OVER () AS found FROM (";
    const TAIL: &str = ") AS near) AS lane ON true
         LEFT JOIN executr.bucket b ON b.queue = $1 AND b.priority = p.priority::smallint AND b.tenant = lane.tenant
              AND b.active AND NOT b.retired AND ($3::text[] IS NULL OR b.class = ANY($3)) AND b.id <> ALL($4)
         ORDER BY p.priority, lane.turn, lane.tenant";
    const BY_TURN: &str = "SELECT turn, tenant FROM executr.bucket
         WHERE queue = $1 AND priority = p.priority::smallint AND active
               AND ($3::text[] IS NULL OR class = ANY($3)) AND id <> ALL($4)
         ORDER BY turn, tenant LIMIT $2";
    const BY_CLASS: &str = "SELECT each.turn, each.tenant FROM unnest($3::text[]) AS asked (class)
         CROSS JOIN LATERAL (
             SELECT turn, tenant FROM executr.bucket
             WHERE queue = $1 AND class = asked.class AND priority = p.priority::smallint AND active AND id <> ALL($4)
             ORDER BY turn, tenant LIMIT $2) AS each
         ORDER BY each.turn, each.tenant LIMIT $2";
    static BY_TURN_SQL: LazyLock<String> = LazyLock::new(|| [HEAD, BY_TURN, TAIL].concat());
    static BY_CLASS_SQL: LazyLock<String> = LazyLock::new(|| [HEAD, BY_CLASS, TAIL].concat());

    // Read first: what is learnt after it may be missing in the filter.
    let highest = core.registry.highest();
    let filter = core.registry.filter(queue, &claim.offers);
    let classes = match &*filter {
        ClassFilter::All => None,
        ClassFilter::Some(classes) => Some(classes),
    };
    let sql = match classes {
        Some(classes) if classes.len() <= FEW_CLASSES => BY_CLASS_SQL.as_str(),
        _ => BY_TURN_SQL.as_str(),
    };
    let rows = session.rows(sql, &[&queue.as_str(), &(limit as i64), &classes, &round.exhausted]).await?;
    if rows.first().is_some_and(|row| row.get::<_, i32>(0) > highest) {
        core.registry.refresh(session).await?;
        return Ok(None);
    }
    let mut groups: BTreeMap<i32, Group> = BTreeMap::new();
    let mut last: Option<(i32, String)> = None;
    for row in rows {
        let Some(bucket) = row.get::<_, Option<i32>>(5) else { continue };
        let priority: i32 = row.get(2);
        let found: i64 = row.get(6);
        let group = groups.entry(priority).or_insert_with(|| Group {
            lanes: Vec::new(),
            complete: found < limit as i64,
            last_turn: row.get(1),
        });
        let name = (priority, row.get::<_, String>(4));
        match group.lanes.last_mut() {
            Some(lane) if last.as_ref() == Some(&name) => lane.buckets.push(bucket),
            _ => group.lanes.push(Lane { turn: row.get(3), buckets: vec![bucket] }),
        }
        last = Some(name);
    }
    Ok(Some(groups.into_values().collect()))
}
