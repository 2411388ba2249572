//! What a new document changes that this process cannot take up while it runs.

use crate::config::Config;

/// The changes that wait for a restart, in words.
pub fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
    let mut waiting = Vec::new();
    if old.runtime.threads != new.runtime.threads {
        waiting.push("`runtime.threads` takes effect after a restart".to_owned());
    }
    if old.runtime.work_stealing != new.runtime.work_stealing {
        waiting.push("`runtime.work_stealing` takes effect after a restart".to_owned());
    }
    waiting
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::process::Threads;

    #[test]
    fn threads_wait_for_a_restart_and_routes_do_not() {
        let old = Config::default();
        let mut new = Config::default();
        new.sites.push(crate::route::SiteConfig::default());
        assert!(needs_restart(&old, &new).is_empty());
        new.runtime.threads = Threads::Number(7);
        assert_eq!(needs_restart(&old, &new).len(), 1);
    }
}
