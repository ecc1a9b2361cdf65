//! The runs that aren't final, in memory.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use executr_api::JobState;
use executr_spec::{RunId, Timestamp, WorkerId};

use crate::lifecycle::graph::{Before, Stop, counts_as_failure, is_stopped};
use crate::sqlite::error::damaged;
use crate::sqlite::index::BucketId;
use crate::sqlite::row::{STATES, state_code};
use crate::{Gate, StoreError};

/// Where a job stands: its run's number, and its place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sqlite) struct Place {
    pub(super) number: i64,
    pub(super) index: u32,
}

impl Place {
    pub(super) fn seq(self) -> i64 {
        self.number + 1 + i64::from(self.index)
    }

    pub(super) fn at(self, index: u32) -> Self {
        Self { index, ..self }
    }
}

/// A job of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub(super) state: JobState,
    pub(super) gate: Gate,
    pub(super) continue_on_error: bool,
    /// Whether it was done in an earlier run: then it waits for nothing.
    pub(super) done: bool,
    /// Whether it was handed out once.
    pub(super) handed_out: bool,
    pub(super) asked: bool,
    pub(super) keyed: bool,
    pub(super) has_inputs: bool,
    pub(super) has_outputs: bool,
    /// How many of its needs aren't final.
    pub(super) pending: u32,
    pub(super) before: Before,
    /// Its workspace's place in the run's list.
    pub(super) workspace: Option<u16>,
    pub(super) bucket: BucketId,
}

impl Node {
    /// Whether it is its turn to be decided about.
    fn has_turn(&self) -> bool {
        self.state == JobState::Waiting && self.pending == 0 && !self.asked
    }
}

/// Lists of places, one for each place, in one piece of memory.
#[derive(Debug, Default)]
pub(super) struct Edges {
    ends: Vec<u32>,
    places: Vec<u32>,
}

impl Edges {
    pub(super) fn push(&mut self, places: impl IntoIterator<Item = u32>) {
        self.places.extend(places);
        self.ends.push(self.places.len() as u32);
    }

    pub(super) fn of(&self, index: u32) -> &[u32] {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before as usize]);
        &self.places[start as usize..self.ends[index as usize] as usize]
    }

    /// The same edges the other way round.
    pub(super) fn reversed(&self) -> Self {
        let mut ends = vec![0_u32; self.ends.len()];
        for place in &self.places {
            ends[*place as usize] += 1;
        }
        let mut total = 0;
        for end in &mut ends {
            total += *end;
            *end = total;
        }
        // Filled from behind: what is the end of a list becomes its start, and is put right by the next pass.
        let mut places = vec![0; self.places.len()];
        let mut next = ends.clone();
        for index in (0..self.ends.len() as u32).rev() {
            for place in self.of(index) {
                next[*place as usize] -= 1;
                places[next[*place as usize] as usize] = index;
            }
        }
        Self { ends, places }
    }
}

/// A workspace of a run, its newest generation.
#[derive(Debug)]
pub(super) struct Workspace {
    pub(super) executor: String,
    pub(super) generation: u32,
    pub(super) holder: Option<WorkerId>,
    /// How many jobs that use it aren't final.
    pub(super) left: u32,
}

/// A run that isn't final, or has become so in the command that is being carried out.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) id: RunId,
    pub(super) fail_fast: bool,
    /// It was looked for what stops with the first failure.
    pub(super) stopping: bool,
    pub(super) deadline: Option<Timestamp>,
    pub(super) cancelling: bool,
    /// It was asked to stop at once, since the store was opened: what was asked before has no job left that could start.
    pub(super) at_once: bool,
    pub(super) created_at: Timestamp,
    pub(super) started_at: Option<Timestamp>,
    pub(super) ended: Option<executr_api::RunState>,
    pub(super) message: Option<Arc<str>>,
    pub(super) last_event: u64,
    /// How many jobs count as failures.
    pub(super) failed: u64,
    /// Jobs in each state, by `state_code`.
    pub(super) counts: [u64; STATES.len()],
    pub(super) names: Vec<Box<str>>,
    pub(super) nodes: Vec<Node>,
    pub(super) needs: Edges,
    pub(super) successors: Edges,
    pub(super) workspaces: Vec<Workspace>,
}

impl Live {
    pub(super) fn stop(&self) -> Stop {
        match self.at_once {
            true => Stop::AtOnce,
            false => Stop::of(self.cancelling, self.fail_fast, self.failed),
        }
    }

    /// Whether a failure stops it, and none did before.
    pub(super) fn begins_to_stop(&mut self) -> bool {
        self.stop() == Stop::AfterFailure && !std::mem::replace(&mut self.stopping, true)
    }

    pub(super) fn node(&self, index: u32) -> Node {
        self.nodes[index as usize]
    }

    pub(super) fn count(&self, state: JobState) -> u64 {
        self.counts[usize::from(state_code(state))]
    }

    /// Whether all jobs are final.
    pub(super) fn is_done(&self) -> bool {
        STATES.iter().zip(self.counts).all(|(state, count)| count == 0 || state.is_final())
    }

    /// Tells the successors of a job that became final; returns those that have their turn now.
    pub(super) fn hand_on(&mut self, index: u32) -> Vec<u32> {
        let mut turns = Vec::new();
        for successor in self.successors.of(index) {
            let next = &mut self.nodes[*successor as usize];
            next.pending = next.pending.saturating_sub(1);
            if next.has_turn() {
                turns.push(*successor);
            }
        }
        // One that was cancelled while it waited has handed on already: what it learns now goes on to those after it.
        let mut told = vec![index];
        while let Some(index) = told.pop() {
            let node = self.node(index);
            for successor in self.successors.of(index) {
                let next = &mut self.nodes[*successor as usize];
                let before = next.before.and(node.before.with(node.state, node.continue_on_error));
                if before != next.before && !next.done {
                    next.before = before;
                    if next.state.is_final() {
                        told.push(*successor);
                    }
                }
            }
        }
        turns
    }

    /// The jobs that are cancelled because the run has begun to stop.
    pub(super) fn stopped(&self) -> Vec<u32> {
        let stop = self.stop();
        let is_stopped = |node: &Node| {
            let attempt = u32::from(node.handed_out);
            let has_turn = node.state != JobState::Waiting || node.asked || self.at_once;
            is_stopped(node.gate, node.state, attempt, stop) && has_turn
        };
        (0..).zip(&self.nodes).filter(|(_, node)| is_stopped(node)).map(|(index, _)| index).collect()
    }
}

/// All runs that aren't final.
#[derive(Debug, Default)]
pub(in crate::sqlite) struct Runs {
    /// Whether what is here is known to be what the database holds.
    pub(super) loaded: bool,
    pub(super) live: BTreeMap<i64, Live>,
    /// Those that aren't cancelling and have a deadline.
    pub(super) deadlines: BTreeSet<(Timestamp, i64)>,
    /// Jobs that are asked about, by submission number.
    pub(super) asked: BTreeSet<i64>,
    /// Jobs of which blobs are kept that no artifact names yet.
    pub(super) keeping: HashSet<i64>,
    /// Those that changed in this command.
    pub(super) changed: BTreeSet<i64>,
}

impl Runs {
    /// Where the job stands in its run, if it is of one that isn't final.
    pub(in crate::sqlite) fn place(&self, seq: i64) -> Option<Place> {
        let (number, run) = self.live.range(..seq).next_back()?;
        let index = u32::try_from(seq - number - 1).ok()?;
        ((index as usize) < run.nodes.len()).then_some(Place { number: *number, index })
    }

    pub(super) fn get(&self, number: i64) -> Result<&Live, StoreError> {
        self.live.get(&number).ok_or_else(|| damaged(format_args!("no run {number}")))
    }

    /// The run, which is about to change.
    pub(super) fn get_mut(&mut self, number: i64) -> Result<&mut Live, StoreError> {
        self.changed.insert(number);
        self.live.get_mut(&number).ok_or_else(|| damaged(format_args!("no run {number}")))
    }

    pub(super) fn node(&self, place: Place) -> Result<Node, StoreError> {
        Ok(self.get(place.number)?.node(place.index))
    }

    pub(super) fn node_mut(&mut self, place: Place) -> Result<&mut Node, StoreError> {
        Ok(&mut self.get_mut(place.number)?.nodes[place.index as usize])
    }

    /// The job, if it is of a run, goes to another state.
    pub(in crate::sqlite) fn step(&mut self, seq: i64, to: JobState) -> Result<(), StoreError> {
        let Some(place) = self.place(seq) else { return Ok(()) };
        let run = self.get_mut(place.number)?;
        let node = &mut run.nodes[place.index as usize];
        let from = std::mem::replace(&mut node.state, to);
        node.handed_out |= to == JobState::Running;
        let was_asked = std::mem::take(&mut node.asked);
        run.counts[usize::from(state_code(from))] -= 1;
        run.counts[usize::from(state_code(to))] += 1;
        if to.is_final() {
            run.failed += u64::from(counts_as_failure(to, node.continue_on_error));
            if let Some(workspace) = node.workspace {
                run.workspaces[usize::from(workspace)].left -= 1;
            }
        }
        if was_asked {
            self.asked.remove(&seq);
        }
        Ok(())
    }

    /// When the next run is to be cancelled.
    pub(in crate::sqlite) fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_the_other_way_round() {
        let mut needs = Edges::default();
        for list in [vec![], vec![0], vec![], vec![0, 1], vec![0, 3]] {
            needs.push(list);
        }
        let successors = needs.reversed();
        let lists: Vec<_> = (0..5).map(|index| successors.of(index).to_vec()).collect();
        assert_eq!(lists, [vec![1, 3, 4], vec![3], vec![], vec![4], vec![]]);
        assert_eq!(needs.of(3), [0, 1]);
    }
}
