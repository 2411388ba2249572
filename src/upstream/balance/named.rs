//! `Named`: a member by its name, for tables that are made of names.

use super::policy::Member;

/// A member by its name.
#[derive(Clone, Copy)]
pub(super) struct Named<'a> {
    pub(super) label: &'a str,
    /// How many of the same name come before: two names of one server, each to be told which one was meant.
    pub(super) repeat: u32,
    pub(super) weight: u32,
    pub(super) position: u32,
}

impl<'a> Named<'a> {
    /// All members in the order of their names, which does not depend on who lists them.
    pub(super) fn all(members: &'a [Member]) -> Vec<Self> {
        let mut all: Vec<Self> = (0..)
            .zip(members)
            .map(|(position, member)| Self { label: &member.label, repeat: 0, weight: member.weight, position })
            .collect();
        all.sort_by_key(|member| member.label);
        for later in 1..all.len() {
            if all[later].label == all[later - 1].label {
                all[later].repeat = all[later - 1].repeat + 1;
            }
        }
        all
    }
}
