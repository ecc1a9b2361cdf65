//! What is probably ready, and who waits for it.
//!
//! A *hint* says that a queue and class may have ready jobs. It is set when jobs become ready and taken away by a claim
//! that could have had more and got less. While no hint fits a worker, its exchange asks the store nothing and waits.
//!
//! Jobs that become ready wake as many waiting exchanges as they fill; when a claim was filled, so that there may be
//! more, it wakes one further, if any that fits was left asleep. A woken exchange that ends without a claim passes
//! the wake on.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use executr_spec::{Offers, QueueName, RequirementClass, Requirements};

use crate::bell::Bell;
use crate::lock::Lock;

/// All hints and all that wait.
#[derive(Debug, Default)]
pub(crate) struct Ready(Lock<State>);

#[derive(Debug, Default)]
struct State {
    /// Counts what happens, to tell a hint set before a claim was sent from one set after.
    clock: u64,
    queues: HashMap<QueueName, Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    hints: HashMap<RequirementClass, Hint>,
    /// By ticket, so the longest waiting first.
    waiting: BTreeMap<u64, Arc<Waiting>>,
    /// Whether anybody asked for it since the last [`Ready::asked_for`].
    asked_for: bool,
}

#[derive(Debug)]
struct Hint {
    requirements: Requirements,
    set_at: u64,
    /// Whether somebody who waits may fit and was not woken.
    unasked: bool,
}

/// An exchange that could run more.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) queues: Arc<[QueueName]>,
    pub(crate) offers: Arc<Offers>,
    pub(crate) free: u32,
    pub(crate) bell: Arc<Bell>,
}

/// What an exchange with free slots should do.
#[derive(Debug)]
pub(crate) enum Entered {
    /// Ask the store: something may be ready.
    Claim,
    /// Wait: the bell rings when that changes.
    Wait(Ticket),
}

/// A place among those that wait. Dropped, it is given up; when it was woken, the wake is passed on.
#[derive(Debug)]
pub(crate) struct Ticket {
    number: u64,
    waiting: Option<Arc<Waiting>>,
    ready: Arc<Ready>,
}

/// A wake that was not answered with a claim yet. Dropped, it goes to somebody else.
#[derive(Debug)]
pub(crate) struct Wake {
    waiting: Option<Arc<Waiting>>,
    ready: Arc<Ready>,
}

/// A moment on the clock of hints.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment(u64);

/// Queues not kept track of before. Dropped before all are looked up, as by a request that broke, the rest are forgotten,
/// so that the next that asks for them looks.
#[derive(Debug)]
pub(crate) struct New<'a> {
    ready: &'a Ready,
    queues: Vec<QueueName>,
    looked_up: usize,
}

impl New<'_> {
    /// The next to look up.
    pub(crate) fn next(&self) -> Option<&QueueName> {
        self.queues.get(self.looked_up)
    }

    /// What is ready in it was told.
    pub(crate) fn looked_up(&mut self) {
        self.looked_up += 1;
    }
}

impl Drop for New<'_> {
    fn drop(&mut self) {
        if self.looked_up < self.queues.len() {
            self.ready.forget(&self.queues[self.looked_up..]);
        }
    }
}

impl State {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn fits(&self, queues: &[QueueName], offers: &Offers) -> bool {
        queues.iter().any(|name| match self.queues.get(name) {
            Some(queue) => queue.hints.values().any(|hint| hint.requirements.met_by(offers)),
            // Forgotten meanwhile, so nothing is known: the store has to be asked.
            None => true,
        })
    }

    /// Wakes those who wait for this class, the longest waiting first, until `jobs` jobs would find a slot.
    fn wake(&mut self, name: &QueueName, class: &RequirementClass, jobs: u32) -> bool {
        let Some(queue) = self.queues.get_mut(name) else { return false };
        let Some(hint) = queue.hints.get_mut(class) else { return false };
        let mut left = jobs;
        let mut woken = Vec::new();
        hint.unasked = false;
        for (ticket, waiting) in &queue.waiting {
            if left == 0 {
                hint.unasked = true;
                break;
            }
            if hint.requirements.met_by(&waiting.offers) {
                left = left.saturating_sub(waiting.free);
                woken.push((*ticket, Arc::clone(waiting)));
            }
        }
        for (ticket, waiting) in &woken {
            self.remove(*ticket, waiting);
            waiting.bell.ring();
        }
        !woken.is_empty()
    }

    fn remove(&mut self, ticket: u64, waiting: &Waiting) -> bool {
        let mut was = false;
        for name in waiting.queues.iter() {
            if let Some(queue) = self.queues.get_mut(name) {
                was |= queue.waiting.remove(&ticket).is_some();
            }
        }
        was
    }

    /// Wakes one who waits for anything that may be ready in `queues` and was not offered to all.
    fn wake_further(&mut self, queues: &[QueueName]) {
        for name in queues {
            let classes: Vec<_> = match self.queues.get(name) {
                Some(queue) => {
                    queue.hints.iter().filter(|(_, hint)| hint.unasked).map(|(class, _)| class.clone()).collect()
                }
                None => continue,
            };
            for class in classes {
                if self.wake(name, &class, 1) {
                    return;
                }
            }
        }
    }
}

impl Ready {
    /// Makes sure that these queues are kept track of. Returns those that were not: what is ready in them has to be
    /// looked up and told with [`set`](Self::set).
    pub(crate) fn track(&self, queues: &[QueueName]) -> New<'_> {
        let mut state = self.0.hold();
        let mut new = Vec::new();
        for name in queues {
            match state.queues.get_mut(name) {
                Some(queue) => queue.asked_for = true,
                None => {
                    state.queues.insert(name.clone(), Queue { asked_for: true, ..Queue::default() });
                    new.push(name.clone());
                }
            }
        }
        New { ready: self, queues: new, looked_up: 0 }
    }

    /// Takes back [`track`](Self::track): what is ready there was not looked up.
    fn forget(&self, queues: &[QueueName]) {
        let mut state = self.0.hold();
        for name in queues {
            if let Some(queue) = state.queues.remove(name) {
                for waiting in queue.waiting.into_values() {
                    waiting.bell.ring();
                }
            }
        }
    }

    /// The queues somebody waits for, or asked for since the last time. Forgets the others.
    pub(crate) fn asked_for(&self) -> Vec<QueueName> {
        let mut state = self.0.hold();
        state.queues.retain(|_, queue| std::mem::take(&mut queue.asked_for) || !queue.waiting.is_empty());
        state.queues.keys().cloned().collect()
    }

    /// All queues kept track of.
    pub(crate) fn tracked(&self) -> Vec<QueueName> {
        self.0.hold().queues.keys().cloned().collect()
    }

    /// `jobs` jobs of this queue and class became ready. In a queue not kept track of nobody waits: it is looked up when
    /// somebody comes.
    pub(crate) fn set(&self, name: &QueueName, class: &RequirementClass, jobs: u32) {
        let mut state = self.0.hold();
        let set_at = state.tick();
        let Some(queue) = state.queues.get_mut(name) else { return };
        match queue.hints.get_mut(class) {
            Some(hint) => hint.set_at = set_at,
            None => {
                let hint = Hint { requirements: class.requirements(), set_at, unasked: false };
                queue.hints.insert(class.clone(), hint);
            }
        }
        state.wake(name, class, jobs);
    }

    /// Now, to be noted before a claim is sent.
    pub(crate) fn moment(&self) -> Moment {
        Moment(self.0.hold().clock)
    }

    /// A claim that was sent at `sent` came back, `filled` or with less than it asked for.
    pub(crate) fn claimed(&self, queues: &[QueueName], offers: &Offers, sent: Moment, filled: bool) {
        let mut state = self.0.hold();
        if filled {
            state.wake_further(queues);
            return;
        }
        for name in queues {
            if let Some(queue) = state.queues.get_mut(name) {
                queue.hints.retain(|_, hint| hint.set_at > sent.0 || !hint.requirements.met_by(offers));
            }
        }
    }

    /// Whether something may be ready for a worker.
    pub(crate) fn fits(&self, queues: &[QueueName], offers: &Offers) -> bool {
        self.0.hold().fits(queues, offers)
    }

    /// Says whether to claim, else waits in line.
    pub(crate) fn enter(self: &Arc<Self>, waiting: Waiting) -> Entered {
        let mut state = self.0.hold();
        if state.fits(&waiting.queues, &waiting.offers) {
            return Entered::Claim;
        }
        let number = state.tick();
        let waiting = Arc::new(waiting);
        for name in waiting.queues.iter() {
            if let Some(queue) = state.queues.get_mut(name) {
                queue.waiting.insert(number, Arc::clone(&waiting));
            }
        }
        Entered::Wait(Ticket { number, waiting: Some(waiting), ready: Arc::clone(self) })
    }
}

impl Ticket {
    /// Leaves the line. Says when it was woken.
    pub(crate) fn leave(mut self) -> Option<Wake> {
        self.give_up()
    }

    fn give_up(&mut self) -> Option<Wake> {
        let waiting = self.waiting.take()?;
        if self.ready.0.hold().remove(self.number, &waiting) {
            return None;
        }
        Some(Wake { waiting: Some(waiting), ready: Arc::clone(&self.ready) })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // A wake that nobody takes goes to somebody else.
        drop(self.give_up());
    }
}

impl Wake {
    /// It is answered with a claim.
    pub(crate) fn pay(mut self) {
        self.waiting = None;
    }
}

impl Drop for Wake {
    fn drop(&mut self) {
        let Some(waiting) = self.waiting.take() else { return };
        let mut state = self.ready.0.hold();
        for name in waiting.queues.iter() {
            if let Some(queue) = state.queues.get_mut(name) {
                for hint in queue.hints.values_mut().filter(|hint| hint.requirements.met_by(&waiting.offers)) {
                    hint.unasked = true;
                }
            }
        }
        state.wake_further(&waiting.queues);
    }
}

#[cfg(test)]
mod tests {
    use executr_spec::ExecutorKind;

    use super::*;

    fn queue(name: &str) -> QueueName {
        name.parse().expect("a name")
    }

    fn track(ready: &Ready, names: &[&str]) -> Vec<QueueName> {
        let names: Vec<_> = names.iter().map(|name| queue(name)).collect();
        let mut new = ready.track(&names);
        let mut found = Vec::new();
        while let Some(name) = new.next() {
            found.push(name.clone());
            new.looked_up();
        }
        found
    }

    fn gpu() -> Requirements {
        Requirements { labels: [("gpu".to_owned(), "yes".to_owned())].into(), ..Requirements::default() }
    }

    fn plain() -> Offers {
        Offers { executors: [ExecutorKind::Local].into(), ..Offers::default() }
    }

    fn waiting(queues: &[&str], offers: Offers, free: u32) -> Waiting {
        Waiting {
            queues: queues.iter().map(|name| queue(name)).collect(),
            offers: Arc::new(offers),
            free,
            bell: Arc::new(Bell::default()),
        }
    }

    fn line(ready: &Arc<Ready>, count: usize, free: u32) -> Vec<Ticket> {
        (0..count)
            .map(|_| match ready.enter(waiting(&["default"], plain(), free)) {
                Entered::Wait(ticket) => ticket,
                Entered::Claim => panic!("nothing is ready"),
            })
            .collect()
    }

    fn woken(tickets: Vec<Ticket>) -> (Vec<Ticket>, Vec<Wake>) {
        let (mut asleep, mut wakes) = (Vec::new(), Vec::new());
        for ticket in tickets {
            let rung = ticket.waiting.as_ref().is_some_and(|waiting| waiting.bell.take_ring());
            if rung {
                wakes.push(ticket.leave().expect("a wake"));
            } else {
                asleep.push(ticket);
            }
        }
        (asleep, wakes)
    }

    #[test]
    fn as_many_are_woken_as_the_jobs_fill_and_one_more_after_a_filled_claim() {
        let ready = Arc::new(Ready::default());
        track(&ready, &["default"]);
        let tickets = line(&ready, 10, 2);
        let class = Requirements::default().class();
        ready.set(&queue("default"), &class, 3);
        let (tickets, wakes) = woken(tickets);
        assert_eq!(wakes.len(), 2);
        wakes.into_iter().for_each(Wake::pay);
        let sent = ready.moment();
        ready.claimed(&[queue("default")], &plain(), sent, true);
        let (tickets, wakes) = woken(tickets);
        assert_eq!(wakes.len(), 1);
        wakes.into_iter().for_each(Wake::pay);
        ready.claimed(&[queue("default")], &plain(), sent, false);
        ready.claimed(&[queue("default")], &plain(), sent, true);
        assert_eq!(woken(tickets).1.len(), 0, "nothing is ready any more");
    }

    #[test]
    fn a_wake_that_is_not_answered_goes_to_the_next() {
        let ready = Arc::new(Ready::default());
        track(&ready, &["default"]);
        let tickets = line(&ready, 3, 1);
        ready.set(&queue("default"), &Requirements::default().class(), 1);
        let (tickets, wakes) = woken(tickets);
        assert_eq!((tickets.len(), wakes.len()), (2, 1));
        drop(wakes);
        let (tickets, wakes) = woken(tickets);
        assert_eq!((tickets.len(), wakes.len()), (1, 1));
        // Given up without looking whether it was woken: the same.
        wakes.into_iter().for_each(Wake::pay);
        ready.set(&queue("default"), &Requirements::default().class(), 1);
        assert!(tickets[0].waiting.as_ref().is_some_and(|waiting| waiting.bell.take_ring()));
        drop(tickets);
        assert!(matches!(ready.enter(waiting(&["default"], plain(), 1)), Entered::Claim), "the hint stays");
    }

    #[test]
    fn jobs_wake_nobody_who_could_not_run_them() {
        let ready = Arc::new(Ready::default());
        track(&ready, &["default"]);
        let tickets = line(&ready, 3, 1);
        ready.set(&queue("default"), &gpu().class(), 5);
        assert_eq!(woken(tickets).1.len(), 0);
        let able = Offers { labels: [("gpu".to_owned(), "yes".to_owned())].into(), ..plain() };
        assert!(matches!(ready.enter(waiting(&["default"], able.clone(), 1)), Entered::Claim));
        let sent = ready.moment();
        ready.claimed(&[queue("default")], &plain(), sent, false);
        assert!(matches!(ready.enter(waiting(&["default"], able, 1)), Entered::Claim), "others' claims say nothing");
    }

    #[test]
    fn what_became_ready_after_a_claim_was_sent_outlives_its_empty_answer() {
        let ready = Arc::new(Ready::default());
        track(&ready, &["default"]);
        let sent = ready.moment();
        ready.set(&queue("default"), &Requirements::default().class(), 1);
        ready.claimed(&[queue("default")], &plain(), sent, false);
        assert!(matches!(ready.enter(waiting(&["default"], plain(), 1)), Entered::Claim));
        let sent = ready.moment();
        ready.claimed(&[queue("default")], &plain(), sent, false);
        assert!(matches!(ready.enter(waiting(&["default"], plain(), 1)), Entered::Wait(_)));
    }

    #[test]
    fn queues_are_looked_up_once_and_again_after_they_were_forgotten() {
        let ready = Arc::new(Ready::default());
        assert_eq!(track(&ready, &["a", "b"]), [queue("a"), queue("b")]);
        assert!(track(&ready, &["a"]).is_empty());
        let Entered::Wait(ticket) = ready.enter(waiting(&["a"], plain(), 1)) else { panic!("nothing is ready") };
        assert_eq!(ready.asked_for().len(), 2);
        assert_eq!(ready.asked_for(), [queue("a")], "nobody asked for b since");
        assert_eq!(track(&ready, &["b"]), [queue("b")]);
        ready.forget(&[queue("a")]);
        assert!(ticket.waiting.as_ref().is_some_and(|waiting| waiting.bell.take_ring()));
        assert!(matches!(ready.enter(waiting(&["a"], plain(), 1)), Entered::Claim));
    }
}
