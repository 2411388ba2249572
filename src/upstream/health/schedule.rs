//! `Schedule`: whose check is due: each member in its turn, none twice at the same time.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::upstream::clock::Micros;

/// Whose check is due. Members go by their label.
pub(super) struct Schedule<T> {
    members: HashMap<Arc<str>, T>,
    waiting: BTreeSet<(Micros, Arc<str>)>,
    under_way: HashSet<Arc<str>>,
}

impl<T: Clone> Schedule<T> {
    pub(super) fn new() -> Self {
        Self { members: HashMap::new(), waiting: BTreeSet::new(), under_way: HashSet::new() }
    }

    /// Makes these its members. Those that were members already keep their turn; `first` tells when a new one has its first.
    pub(super) fn set(&mut self, members: impl Iterator<Item = (Arc<str>, T)>, first: impl Fn(&T) -> Micros) {
        let before = std::mem::take(&mut self.members);
        for (label, member) in members {
            if !before.contains_key(&label) && !self.members.contains_key(&label) && !self.under_way.contains(&label) {
                self.waiting.insert((first(&member), Arc::clone(&label)));
            }
            // Of two with one label the first is asked: it is one server under two names.
            self.members.entry(label).or_insert(member);
        }
        let members = &self.members;
        self.waiting.retain(|(_, label)| members.contains_key(label));
    }

    /// When the next turn is.
    pub(super) fn next(&self) -> Option<Micros> {
        self.waiting.first().map(|(due, _)| *due)
    }

    /// The member whose turn it is, if there is one at this moment. Its check is under way until [`Schedule::done`].
    pub(super) fn take(&mut self, now: Micros) -> Option<(Arc<str>, T)> {
        if self.next().is_none_or(|due| due > now) {
            return None;
        }
        let (_, label) = self.waiting.pop_first()?;
        let member = self.members.get(&label)?.clone();
        self.under_way.insert(Arc::clone(&label));
        Some((label, member))
    }

    /// The check of this member has ended; its next turn is at `due`.
    pub(super) fn done(&mut self, label: &Arc<str>, due: Micros) {
        self.under_way.remove(label);
        if self.members.contains_key(label) {
            self.waiting.insert((due, Arc::clone(label)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(names: &str) -> impl Iterator<Item = (Arc<str>, char)> + '_ {
        names.chars().map(|name| (Arc::from(name.to_string()), name))
    }

    fn taken(schedule: &mut Schedule<char>, now: Micros) -> String {
        std::iter::from_fn(|| schedule.take(now)).map(|(_, member)| member).collect()
    }

    #[test]
    fn each_has_its_turn_and_none_two_at_once() {
        let mut schedule = Schedule::new();
        schedule.set(labels("ab"), |member| if *member == 'a' { 5 } else { 3 });
        assert_eq!((schedule.next(), taken(&mut schedule, 2)), (Some(3), String::new()));
        assert_eq!(taken(&mut schedule, 9), "ba");
        assert_eq!((schedule.next(), taken(&mut schedule, 999)), (None, String::new()));
        schedule.done(&"a".into(), 20);
        assert_eq!((schedule.next(), taken(&mut schedule, 20)), (Some(20), "a".to_owned()));
    }

    #[test]
    fn who_stays_keeps_its_turn_and_who_leaves_has_none() {
        let mut schedule = Schedule::new();
        schedule.set(labels("abc"), |_| 5);
        schedule.set(labels("bcd"), |_| 1);
        assert_eq!(taken(&mut schedule, 1), "d", "new: at once");
        assert_eq!(taken(&mut schedule, 5), "bc", "as before");
        schedule.set(labels("c"), |_| 1);
        for gone in ["b", "d"] {
            schedule.done(&gone.into(), 9);
        }
        assert_eq!(schedule.next(), None);
        schedule.set(labels("bc"), |_| 1);
        assert_eq!(taken(&mut schedule, 9), "b", "the check of `c` is under way still");
    }

    #[test]
    fn one_server_under_two_names_is_checked_once() {
        let mut schedule = Schedule::new();
        let twice = [(Arc::from("a"), 'x'), (Arc::from("a"), 'y')];
        schedule.set(twice.into_iter(), |_| 0);
        assert_eq!(taken(&mut schedule, 0), "x");
    }
}
