//! What the system says of a running process: its memory and its CPU time.

use std::time::Duration;

use crate::Result;

/// A process, by its id.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process(pub(crate) u32);

/// Units of CPU time in a second, as Linux shows them to programs: the same everywhere.
const TICKS_PER_S: u32 = 100;

impl Process {
    /// Its resident memory now, in bytes.
    pub(crate) fn memory_bytes(self) -> Result<u64> {
        self.memory("VmRSS:")
    }

    /// Its peak resident memory so far, in bytes.
    pub(crate) fn memory_peak_bytes(self) -> Result<u64> {
        self.memory("VmHWM:")
    }

    /// CPU time that all its threads have had so far, of their own and in the kernel. Counted in ticks of 10 ms.
    pub(crate) fn cpu(self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0))?;
        let ticks = cpu_ticks(&stat).ok_or("no CPU time in the process's `stat`")?;
        Ok(Duration::from_secs(ticks) / TICKS_PER_S)
    }

    fn memory(self, name: &str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0))?;
        memory_of(&status, name).ok_or_else(|| format!("no {name} in the process's `status`").into())
    }
}

fn memory_of(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}

/// utime + stime: the 14th and 15th field, counted behind the name, which may have spaces and parentheses in it.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_whatever_the_name() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 11 22 33 44 250 50 3 4 20 0 5 0 99 1000 200";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(cpu_ticks("7 (a) S 1"), None);
    }

    #[test]
    fn memory_is_in_bytes() {
        assert_eq!(memory_of("Name:\ta\nVmHWM:\t  20 kB\nVmRSS:\t  12 kB\n", "VmRSS:"), Some(12 << 10));
        assert_eq!(memory_of("Name:\ta\n", "VmRSS:"), None);
    }

    #[test]
    fn this_process_has_some_of_both() {
        let this = Process(std::process::id());
        assert!(this.memory_bytes().expect("it is there") <= this.memory_peak_bytes().expect("it is there"));
        this.cpu().expect("it is there");
    }
}
