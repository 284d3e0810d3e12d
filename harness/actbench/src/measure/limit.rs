//! The memory that this process can still allocate: on the machine, and within its cgroups.
//!
//! A group limits what its own processes and those of all groups below it use together, so every group from the process's up
//! to the highest visible one counts. Both versions of the interface are read, as described by the kernel's documentation
//! (`Documentation/admin-guide/cgroup-v2.rst` and `cgroup-v1/memory.rst`).
//!
//! Of what a group uses, the page cache of files and reclaimable kernel memory are not counted: the kernel gives them up before
//! it kills a process, as it does for `MemAvailable`. `memory.high` counts like `memory.max`: above it the kernel does not kill,
//! but it slows every allocation down, and times measured there mean nothing.

use std::fs;
use std::path::{Path, PathBuf};

/// A limit of version 1 of at least this many bytes is none: the kernel's largest number of pages depends on their size.
const UNLIMITED: u64 = 1 << 60;

/// Bytes that this process can still allocate: `MemAvailable`, or what is left in one of its cgroups if that is less.
/// None if neither is known.
pub fn available() -> Option<u64> {
    available_below(Path::new("/"))
}

/// As [`available`], with the files of the system below `root`.
fn available_below(root: &Path) -> Option<u64> {
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let machine = parse_available(&read("proc/meminfo"));
    let directories = group_directories(root, &read("proc/self/cgroup"), &read("proc/self/mountinfo"));
    let groups = directories.iter().filter_map(|directory| left_in(directory));
    groups.chain(machine).min()
}

fn parse_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// A mount of a hierarchy of groups that has the memory controller, or may have.
struct GroupMount {
    /// The group that is mounted.
    group: PathBuf,
    /// Where it is mounted.
    point: PathBuf,
    /// Version 2 of the interface.
    is_unified: bool,
}

/// The directories of this process's groups and of all groups above them that are visible here.
fn group_directories(root: &Path, groups: &str, mounts: &str) -> Vec<PathBuf> {
    let mut mounted: Vec<GroupMount> = mounts.lines().filter_map(parse_mount).collect();
    if mounted.is_empty() {
        // Without a list of mounts: where every distribution has it.
        mounted.push(GroupMount { group: "/".into(), point: "/sys/fs/cgroup".into(), is_unified: true });
    }
    let mut directories = Vec::new();
    for mount in &mounted {
        let Some(group) = groups.lines().find_map(|line| group_of(line, mount.is_unified)) else { continue };
        let top = below(root, &mount.point);
        // A group outside of the mount, as that of a process which entered another namespace, is not visible. What is mounted
        // is then the best that is known.
        let inside = Path::new(group).strip_prefix(&mount.group).unwrap_or(Path::new(""));
        let is_plain = inside.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        let own = if is_plain && top.join(inside).is_dir() { top.join(inside) } else { top.clone() };
        directories.extend(own.ancestors().take_while(|directory| directory.starts_with(&top)).map(Path::to_path_buf));
    }
    directories
}

/// The absolute `path`, below `root`.
fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// The group in a line of `/proc/self/cgroup`: `0::/path` is version 2, `7:cpu,memory:/path` version 1.
fn group_of(line: &str, is_unified: bool) -> Option<&str> {
    let mut fields = line.splitn(3, ':');
    let (hierarchy, controllers, group) = (fields.next()?, fields.next()?, fields.next()?);
    let is_wanted = match is_unified {
        true => hierarchy == "0" && controllers.is_empty(),
        false => controllers.split(',').any(|controller| controller == "memory"),
    };
    is_wanted.then_some(group)
}

/// A line of `/proc/self/mountinfo`, see proc_pid_mountinfo(5): the fourth and fifth fields, and the type and options that
/// follow a hyphen.
fn parse_mount(line: &str) -> Option<GroupMount> {
    let (place, kind) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(3);
    let (group, point) = (unescaped(place.next()?), unescaped(place.next()?));
    let mut kind = kind.split(' ');
    let (kind, options) = (kind.next()?, kind.nth(1).unwrap_or_default());
    let is_unified = kind == "cgroup2";
    let has_memory = is_unified || (kind == "cgroup" && options.split(',').any(|option| option == "memory"));
    has_memory.then_some(GroupMount { group, point, is_unified })
}

/// The path without the octal escapes that stand for space, tab, line break and backslash.
fn unescaped(path: &str) -> PathBuf {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    PathBuf::from(escapes.iter().fold(path.to_owned(), |path, (escape, character)| path.replace(escape, character)))
}

/// Bytes left below the limit of the group at `directory`; none without a limit.
fn left_in(directory: &Path) -> Option<u64> {
    let number = |name: &str| -> Option<u64> { fs::read_to_string(directory.join(name)).ok()?.trim().parse().ok() };
    let stat = fs::read_to_string(directory.join("memory.stat")).unwrap_or_default();
    let unified = [number("memory.max"), number("memory.high")].into_iter().flatten().min();
    // Of version 1 the statistics also know the lowest limit of all groups above, visible or not.
    let first = [number("memory.limit_in_bytes"), stat_value(&stat, "hierarchical_memory_limit")];
    let first = first.into_iter().flatten().filter(|limit| *limit < UNLIMITED).min();
    let limit = unified.into_iter().chain(first).min()?;
    let used = number("memory.current").or_else(|| number("memory.usage_in_bytes")).unwrap_or(0);
    // Version 1 has sums over the groups below under names of their own.
    let sum = |name: &str| stat_value(&stat, &format!("total_{name}")).or_else(|| stat_value(&stat, name)).unwrap_or(0);
    let reclaimable: u64 = ["inactive_file", "active_file", "slab_reclaimable"].iter().map(|name| sum(name)).sum();
    Some(limit.saturating_sub(used.saturating_sub(reclaimable)))
}

/// The value of `name` in a file of names and values.
fn stat_value(stat: &str, name: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests;
