//! Whether what is in memory could be written to a swap area, where no erasure reaches it.
//!
//! `serve` refuses to start where it could, unless `memory.accept_swap` says so; `dev` starts and says it loudly. By cases:
//! - *Memory is locked* ([`super::process`]): the kernel does not swap it, whatever areas there are or will be.
//! - *No swap is on*: nothing is written now; an area that is turned on later could take memory that is not locked, which
//!   the warning about locking says.
//! - *The control group forbids it*: `memory.swap.max` is 0 in ours or in one above.
//! - *Anything else*, a list of areas that cannot be read included: it could. Compressed memory (zram) counts like a disk: what
//!   was once swapped to it stays there unwiped after we free it, and memory like any other may then be written elsewhere.
//!
//! It does not speak of hibernation, which writes locked memory as well, nor of a hypervisor that swaps its guests: the docs
//! do.

use super::process;
use anyhow::bail;
use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

const REMEDY: &str =
    "turn swap off, or lock memory (LimitMEMLOCK=infinity) or forbid swap to the unit (MemorySwapMax=0)";

/// Ends the start where memory could be swapped out and nobody accepted that.
///
/// # Errors
/// What could take it, and what to do.
pub fn refuse(accepted: bool) -> anyhow::Result<()> {
    match exposed() {
        Some(_) if accepted => {
            tracing::warn!("keys and audio could be written to swap; memory.accept_swap accepts that")
        }
        Some(where_to) => {
            bail!("keys and audio could be written to swap ({where_to}): {REMEDY}, or say `memory.accept_swap = true`")
        }
        None => {}
    }
    Ok(())
}

/// Says it where memory could be swapped out.
pub fn warn() {
    if let Some(where_to) = exposed() {
        tracing::warn!(
            swap = where_to,
            "NOT SAFE: keys and audio could be written to swap and outlive their erasure: {REMEDY}"
        );
    }
}

/// What could take our memory.
fn exposed() -> Option<String> {
    let areas = match fs::read_to_string("/proc/swaps") {
        Ok(text) => Ok(text),
        // A kernel without swap. Where /proc itself is not there, or is hidden, nobody knows.
        Err(error) if error.kind() == ErrorKind::NotFound && Path::new("/proc/meminfo").exists() => Ok(String::new()),
        Err(error) => Err(error.to_string()),
    };
    let group = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = limits_of(&group).into_iter().filter_map(|path| fs::read_to_string(path).ok());
    judge(process::is_locked(), areas.as_deref().map_err(String::as_str), limits)
}

/// The decision, on what the system says: areas as in `/proc/swaps`, limits as in `memory.swap.max`.
fn judge(locked: bool, areas: Result<&str, &str>, mut limits: impl Iterator<Item = String>) -> Option<String> {
    if locked || limits.any(|limit| limit.trim() == "0") {
        return None;
    }
    match areas {
        Ok(areas) => {
            // The first line is a heading.
            let mut paths = areas.lines().skip(1).filter_map(|line| line.split_whitespace().next());
            paths.next().map(str::to_owned)
        }
        Err(why) => Some(format!("its areas cannot be told: {why}")),
    }
}

/// Where the swap limits of a control group and of those above it are, by what `/proc/PID/cgroup` says (version 2 alone: of
/// version 1 no swap limit is known that forbids it whole).
fn limits_of(group: &str) -> Vec<PathBuf> {
    let Some(path) = group.lines().find_map(|line| line.strip_prefix("0::/")) else { return Vec::new() };
    let groups = Path::new(path).ancestors();
    groups.map(|group| Path::new("/sys/fs/cgroup").join(group).join("memory.swap.max")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADING: &str = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";

    fn judged(locked: bool, areas: &str, limits: &[&str]) -> Option<String> {
        judge(locked, Ok(areas), limits.iter().map(|limit| (*limit).to_owned()))
    }

    #[test]
    fn swap_that_could_take_memory_is_named() {
        let areas = format!("{HEADING}/dev/sda2 partition 1048572 0 -2\n/dev/zram0 partition 1 0 100\n");
        assert_eq!(judged(false, &areas, &["max\n", "max\n"]), Some("/dev/sda2".to_owned()));
        assert_eq!(
            judged(false, &format!("{HEADING}/dev/zram0 partition 1 0 5\n"), &[]),
            Some("/dev/zram0".to_owned())
        );
        assert!(judge(false, Err("permission denied"), std::iter::empty()).is_some());
    }

    #[test]
    fn locked_memory_no_area_or_a_group_without_swap_is_safe() {
        let areas = format!("{HEADING}/swap.img file 1048572 0 -2\n");
        assert_eq!(judged(true, &areas, &[]), None);
        assert_eq!(judged(false, HEADING, &[]), None);
        assert_eq!(judged(false, "", &[]), None);
        assert_eq!(judged(false, &areas, &["max\n", "0\n"]), None);
        assert_eq!(judge(false, Err("hidden"), ["0".to_owned()].into_iter()), None);
    }

    #[test]
    fn the_limits_of_a_group_and_of_those_above_count() {
        let found = limits_of("9:name=systemd:/\n0::/system.slice/quietus.service\n");
        let wanted = ["system.slice/quietus.service/", "system.slice/", ""]
            .map(|group| PathBuf::from(format!("/sys/fs/cgroup/{group}memory.swap.max")));
        assert_eq!(found, wanted);
        assert!(limits_of("4:memory:/docker\n").is_empty());
    }
}
