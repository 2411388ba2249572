//! What a new document changes that this process cannot take up while it runs.

use crate::config::process::Runtime;

/// The changes that wait for a restart, in words.
pub(super) fn needs_restart(old: &Runtime, new: &Runtime) -> Vec<String> {
    let fixed = [
        ("runtime.threads", old.threads != new.threads),
        ("runtime.work_stealing", old.work_stealing != new.work_stealing),
        ("runtime.upstream_pool", old.upstream_pool != new.upstream_pool),
    ];
    let changed = fixed.iter().filter(|(_, changed)| *changed);
    changed.map(|(key, _)| format!("`{key}` takes effect after a restart")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::process::Threads;
    use crate::units::HumanDuration;

    #[test]
    fn threads_wait_for_a_restart_and_the_rest_does_not() {
        let old = Runtime::default();
        let drain = Runtime { drain: HumanDuration::secs(7), ..old.clone() };
        assert!(needs_restart(&old, &drain).is_empty());
        let threads = Runtime { threads: Threads::Number(7), ..old.clone() };
        assert_eq!(needs_restart(&old, &threads), ["`runtime.threads` takes effect after a restart"]);
    }
}
