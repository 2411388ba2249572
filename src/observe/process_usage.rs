//! What the process uses, from `/proc/self`: three small reads a scrape.

use std::fs;

/// What the process uses; `None` where `/proc` does not tell.
#[derive(Debug, Default)]
pub(super) struct ProcessUsage {
    pub(super) resident_bytes: Option<f64>,
    pub(super) cpu_seconds: Option<f64>,
    pub(super) open_fds: Option<f64>,
}

impl ProcessUsage {
    pub(super) fn read() -> Self {
        Self {
            resident_bytes: fs::read_to_string("/proc/self/status").ok().and_then(|text| resident(&text)),
            cpu_seconds: fs::read_to_string("/proc/self/stat").ok().and_then(|text| cpu(&text)),
            open_fds: open_fds(),
        }
    }
}

/// Resident bytes, from the line `VmRSS:  1234 kB`. (`statm` counts pages, whose size takes a system call to learn.)
fn resident(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? * 1024.0)
}

/// CPU seconds, from the fields `utime` and `stime` in clock ticks, which Linux fixes at 100 a second for user space.
fn cpu(stat: &str) -> Option<f64> {
    // The second field is the program's name in parentheses and may itself hold spaces and parentheses.
    let after_name = stat.rsplit_once(')')?.1;
    let mut fields = after_name.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?;
    Some(ticks / 100.0)
}

/// Since Linux 6.2 the size of the folder is the count; before, the entries have to be counted.
fn open_fds() -> Option<f64> {
    match fs::metadata("/proc/self/fd").ok()?.len() {
        0 => Some(fs::read_dir("/proc/self/fd").ok()?.count() as f64),
        count => Some(count as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_proc_are_read() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t   2048 kB\nThreads:\t3\n"), Some(2_097_152.0));
        assert_eq!(cpu("7 (a) b) R 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20"), Some(2.0));
        assert_eq!((resident(""), cpu("7 (")), (None, None));
    }
}
