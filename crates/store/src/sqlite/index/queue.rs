//! One queue: its live classes, and in each the tenants in line by turn.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use executr_spec::{Offers, Priority, QueueName, RequirementClass, Requirements, Tenant};
use rusqlite::{Connection, params};

use super::BucketId;
use crate::StoreError;
use crate::sqlite::error::from_sqlite;
use crate::sqlite::row::integer;

/// So many different offers are remembered with the classes they meet.
const REMEMBERED_OFFERS: usize = 4_096;

/// A bucket that stands in line.
///
/// Lines are put right late: a tenant's turn only grows, so an entry made before is never behind its true place. It is
/// put there when it comes to the front.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct InLine {
    turn: u64,
    tenant: Arc<str>,
    pub(super) bucket: BucketId,
    turn_at: usize,
}

impl InLine {
    /// By what tenants are served.
    pub(super) fn place(&self) -> (u64, &str) {
        (self.turn, &self.tenant)
    }
}

#[derive(Debug)]
struct Class {
    text: RequirementClass,
    requirements: Requirements,
    /// Buckets with jobs that aren't final.
    buckets: usize,
    /// Tells this class from an earlier one with the same text: who stood in a line of that stands in none of this.
    incarnation: u64,
    lines: [BinaryHeap<Reverse<InLine>>; Priority::ALL.len()],
}

#[derive(Debug)]
struct Turn {
    priority: Priority,
    tenant: Arc<str>,
    turn: u64,
    changed: bool,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    classes: Vec<Option<Class>>,
    class_places: HashMap<RequirementClass, usize>,
    free: Vec<usize>,
    turns: Vec<Turn>,
    turn_places: HashMap<(Priority, Arc<str>), usize>,
    last_incarnation: u64,
    /// By the text of the offers; emptied when a class comes or goes.
    met: HashMap<String, Arc<[usize]>>,
}

impl Queue {
    /// Where the tenant's turn is kept; it starts as never served.
    pub(super) fn turn_of(&mut self, priority: Priority, tenant: &Tenant) -> usize {
        let tenant: Arc<str> = tenant.as_str().into();
        *self.turn_places.entry((priority, tenant.clone())).or_insert_with(|| {
            self.turns.push(Turn { priority, tenant, turn: 0, changed: false });
            self.turns.len() - 1
        })
    }

    pub(super) fn set_turn(&mut self, at: usize, turn: u64) {
        self.turns[at].turn = turn;
    }

    /// The tenant has its turn now. Returns whether that is the first time since it was written down.
    pub(super) fn serve(&mut self, at: usize, turn: u64) -> bool {
        self.turns[at].turn = turn;
        !std::mem::replace(&mut self.turns[at].changed, true)
    }

    pub(super) fn write_turn(
        &mut self,
        name: &QueueName,
        at: usize,
        connection: &Connection,
    ) -> Result<(), StoreError> {
        let turn = &mut self.turns[at];
        turn.changed = false;
        connection
            .prepare_cached("INSERT OR REPLACE INTO turn (queue, priority, tenant, turn) VALUES (?1, ?2, ?3, ?4)")
            .and_then(|mut statement| {
                statement.execute(params![name.as_str(), turn.priority.rank(), &*turn.tenant, integer(turn.turn)])
            })
            .map_err(from_sqlite)?;
        Ok(())
    }

    pub(super) fn has_class(&self, class: &RequirementClass) -> bool {
        self.class_places.contains_key(class)
    }

    /// The places and texts of the live classes.
    pub(super) fn class_texts(&self) -> Vec<(usize, RequirementClass)> {
        self.class_places.iter().map(|(text, place)| (*place, text.clone())).collect()
    }

    pub(super) fn live_classes(&self) -> usize {
        self.class_places.len()
    }

    /// A bucket of this class has its first job that isn't final.
    /// Returns the class's place and incarnation.
    pub(super) fn join_class(&mut self, text: &RequirementClass) -> (usize, u64) {
        let place = match self.class_places.get(text) {
            Some(place) => *place,
            None => {
                self.last_incarnation += 1;
                let class = Class {
                    text: text.clone(),
                    requirements: text.requirements(),
                    buckets: 0,
                    incarnation: self.last_incarnation,
                    lines: Default::default(),
                };
                let place = match self.free.pop() {
                    Some(place) => {
                        self.classes[place] = Some(class);
                        place
                    }
                    None => {
                        self.classes.push(Some(class));
                        self.classes.len() - 1
                    }
                };
                self.class_places.insert(text.clone(), place);
                self.met.clear();
                place
            }
        };
        let incarnation = self.classes[place].as_mut().map_or(0, |class| {
            class.buckets += 1;
            class.incarnation
        });
        (place, incarnation)
    }

    /// The last job of a bucket that wasn't final became so.
    pub(super) fn leave_class(&mut self, place: usize) {
        let Some(class) = &mut self.classes[place] else { return };
        class.buckets -= 1;
        if class.buckets == 0 {
            self.class_places.remove(&class.text);
            self.classes[place] = None;
            self.free.push(place);
            self.met.clear();
        }
    }

    pub(super) fn line_up(&mut self, class: usize, priority: Priority, turn_at: usize, bucket: BucketId) {
        let turn = self.turns[turn_at].turn;
        let tenant = self.turns[turn_at].tenant.clone();
        if let Some(class) = self.classes.get_mut(class).and_then(Option::as_mut) {
            class.lines[priority as usize].push(Reverse(InLine { turn, tenant, bucket, turn_at }));
        }
    }

    /// Who is first in the line, among those that `still_waits` says still stand in it.
    pub(super) fn first_in_line(
        &mut self,
        class: usize,
        priority: Priority,
        mut still_waits: impl FnMut(BucketId) -> bool,
    ) -> Option<InLine> {
        let line = &mut self.classes.get_mut(class)?.as_mut()?.lines[priority as usize];
        loop {
            let mut front = line.peek_mut()?;
            let entry = &mut front.0;
            if !still_waits(entry.bucket) {
                std::collections::binary_heap::PeekMut::pop(front);
                continue;
            }
            let turn = self.turns[entry.turn_at].turn;
            if entry.turn == turn {
                return Some(entry.clone());
            }
            entry.turn = turn;
        }
    }

    /// The classes that a worker with these offers can run.
    pub(super) fn met(&mut self, offers: &Offers, text: &str) -> Arc<[usize]> {
        if let Some(met) = self.met.get(text) {
            return met.clone();
        }
        let met: Arc<[usize]> = self
            .classes
            .iter()
            .enumerate()
            .filter(|(_, class)| class.as_ref().is_some_and(|class| class.requirements.met_by(offers)))
            .map(|(place, _)| place)
            .collect();
        if self.met.len() >= REMEMBERED_OFFERS {
            self.met.clear();
        }
        self.met.insert(text.to_owned(), met.clone());
        met
    }
}
