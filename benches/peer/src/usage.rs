//! Processor time and memory, as the operating system counts them.
//!
//! A process's time is that of its CPU clock, in nanoseconds, threads that have ended included; `/proc/PID/stat` would give it in steps of 10 ms.

use std::fs;
use std::time::{Duration, Instant};

use crate::Outcome;

/// User and system time that a process has used since its start.
///
/// # Errors
/// There is no such process, or the system does not tell (anything but Linux).
#[cfg(target_os = "linux")]
pub fn cpu_of(pid: u32) -> Outcome<Duration> {
    use nix::time::clock_getcpuclockid;
    let id = nix::unistd::Pid::from_raw(i32::try_from(pid)?);
    let time = clock_getcpuclockid(id).and_then(|clock| clock.now());
    Ok(time.map_err(|error| format!("the processor time of process {pid} cannot be read: {error}"))?.into())
}

/// User and system time that a process has used since its start.
///
/// # Errors
/// There is no such process, or the system does not tell (anything but Linux).
#[cfg(not(target_os = "linux"))]
pub fn cpu_of(pid: u32) -> Outcome<Duration> {
    Err(format!("the processor time of process {pid} can be read on Linux only").into())
}

/// The resident memory of a process, in bytes.
///
/// # Errors
/// There is no such process, or no `/proc`.
pub fn resident_bytes(pid: u32) -> Outcome<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 =
        line.and_then(|rest| rest.trim().split(' ').next()?.parse().ok()).ok_or("no VmRSS line")?;
    Ok(kib * 1024)
}

/// Processor time that all processors together have spent on anything but idling, since the machine was started; time that a host took away included. In
/// steps of 10 ms.
///
/// # Errors
/// There is no `/proc/stat`.
pub fn machine_busy() -> Outcome<Duration> {
    let stat = fs::read_to_string("/proc/stat").map_err(|error| format!("/proc/stat: {error}"))?;
    Ok(busy_in(&stat).ok_or("/proc/stat has no line of all processors")?)
}

/// The columns are user, nice, system, idle, iowait, irq, softirq, steal; what guests use is part of user.
fn busy_in(stat: &str) -> Option<Duration> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let columns: Vec<u64> = line.split_whitespace().map_while(|column| column.parse().ok()).collect();
    let ticks: u64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|column| columns.get(*column)).sum();
    (columns.len() >= 8).then(|| Duration::from_millis(ticks * 10))
}

/// The clocks at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    at: Instant,
    client: Option<Duration>,
    server: Option<Duration>,
    machine: Option<Duration>,
}

/// What passed between two moments.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Used {
    /// Time.
    pub seconds: f64,
    /// Processor seconds of this process.
    pub client: Option<f64>,
    /// Processor seconds of the server's process.
    pub server: Option<f64>,
    /// Processors that everything else on the machine kept busy, on average.
    pub elsewhere: Option<f64>,
}

impl Usage {
    /// Reads the clocks. `server` is the other process, where it is known.
    pub fn now(server: Option<u32>) -> Self {
        Self {
            client: cpu_of(std::process::id()).ok(),
            server: server.and_then(|pid| cpu_of(pid).ok()),
            machine: machine_busy().ok(),
            at: Instant::now(),
        }
    }

    /// What has passed since, without `skip`, during which both sides only waited.
    pub fn since(self, server: Option<u32>, skip: Duration) -> Used {
        let now = Self { at: Instant::now(), ..Self::now(server) };
        let seconds = (now.at - self.at).saturating_sub(skip).as_secs_f64();
        let used = |after: Option<Duration>, before: Option<Duration>| {
            Some(after?.saturating_sub(before?).as_secs_f64())
        };
        let (client, server) = (used(now.client, self.client), used(now.server, self.server));
        let machine = used(now.machine, self.machine);
        let elsewhere = elsewhere(machine, client, server, (now.at - self.at).as_secs_f64());
        Used { seconds, client, server, elsewhere }
    }
}

/// Processors that others kept busy. What is measured in steps of 10 ms may come out below zero, which is zero, and says nothing of a moment.
fn elsewhere(machine: Option<f64>, client: Option<f64>, server: Option<f64>, seconds: f64) -> Option<f64> {
    let busy = (machine? - client? - server?).max(0.0);
    (seconds >= SHORTEST).then(|| busy / seconds)
}

/// The shortest time, in seconds, over which the load of the rest of the machine is told.
const SHORTEST: f64 = 0.1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_and_waiting_time_is_no_load_and_stolen_time_is() {
        let stat = "cpu  100 10 50 9000 700 1 2 7 3 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(busy_in(stat), Some(Duration::from_millis(1700)));
        assert_eq!(busy_in("cpu  1 2 3\n"), None);
        assert_eq!(busy_in("intr 5\n"), None);
    }

    #[test]
    fn what_is_not_ours_is_elsewhere_and_never_below_zero() {
        let load = elsewhere(Some(4.0), Some(1.5), Some(1.0), 3.0);
        assert!(load.is_some_and(|load| (load - 0.5).abs() < 1e-9), "{load:?}");
        assert_eq!(elsewhere(Some(2.0), Some(1.5), Some(1.0), 3.0), Some(0.0));
        assert_eq!(elsewhere(Some(2.0), Some(1.5), None, 3.0), None);
        assert_eq!(elsewhere(Some(0.02), Some(0.0), Some(0.0), 0.02), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_clock_of_a_process_goes_on_with_its_work() {
        let pid = std::process::id();
        let before = cpu_of(pid).unwrap_or_default();
        let mut sum = 0u64;
        for number in 0..2_000_000u64 {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(number));
        }
        let after = cpu_of(pid).unwrap_or_default();
        assert!(after > before, "{before:?} {after:?} {sum}");
        assert!(resident_bytes(pid).unwrap_or_default() > 100_000);
        assert!(cpu_of(u32::MAX).is_err());
    }
}
