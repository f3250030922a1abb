//! Processor time and memory, as the operating system counts them.

use std::fs;
use std::time::Duration;

/// User and system time that a process has used since its start; zero where it cannot be read.
pub(crate) fn used_by(pid: u32) -> Duration {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return Duration::ZERO };
    // The second field, the name, may hold spaces; fields are counted after its closing parenthesis.
    let Some((_, rest)) = stat.rsplit_once(") ") else { return Duration::ZERO };
    let ticks: u64 = rest.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// The resident memory of a process, in KiB; zero where it cannot be read.
pub(crate) fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.trim().split(' ').next()?.parse().ok()).unwrap_or_default()
}
