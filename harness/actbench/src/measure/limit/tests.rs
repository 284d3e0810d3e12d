//! Recorded trees of cgroups, and a real group where this machine lets one be created.

use std::process::Command;

use super::*;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// Files of a system below a temporary directory.
struct System(tempfile::TempDir);

impl System {
    /// A machine with 16 GiB available, and these two files of `/proc/self`.
    fn new(groups: &str, mounts: &str) -> Self {
        let system = System(tempfile::tempdir().unwrap());
        let available = 16 * GIB / 1024;
        system.write("proc/meminfo", &format!("MemTotal: 99999999 kB\nMemAvailable:   {available} kB\n"));
        system.write("proc/self/cgroup", groups);
        system.write("proc/self/mountinfo", mounts);
        system
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A group of version 2; `limit` may be `max`.
    fn group(&self, path: &str, limit: &str, current: u64, stat: &str) {
        self.write(&format!("{path}/memory.max"), &format!("{limit}\n"));
        self.write(&format!("{path}/memory.high"), "max\n");
        self.write(&format!("{path}/memory.current"), &format!("{current}\n"));
        self.write(&format!("{path}/memory.stat"), stat);
    }

    fn available(&self) -> Option<u64> {
        available_below(self.0.path())
    }
}

const UNIFIED: &str = "22 1 0:21 / /proc rw - proc proc rw\n\
                       30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

#[test]
fn machine_without_groups_has_what_meminfo_says() {
    assert_eq!(System::new("", "").available(), Some(16 * GIB));
    assert_eq!(System::new("0::/\n", UNIFIED).available(), Some(16 * GIB));
    let unlimited = System::new("0::/a\n", UNIFIED);
    unlimited.group("sys/fs/cgroup/a", "max", GIB, "");
    assert_eq!(unlimited.available(), Some(16 * GIB));
    assert_eq!(available_below(Path::new("/no/such/system")), None);
}

#[test]
fn page_cache_and_reclaimable_kernel_memory_are_not_used_memory() {
    let system = System::new("0::/work.slice/job.scope\n", UNIFIED);
    let stat = format!(
        "anon {}\nfile {}\ninactive_file {}\nactive_file {}\nslab_reclaimable {}\nslab_unreclaimable 4096\n",
        100 * MIB,
        1800 * MIB,
        1500 * MIB,
        300 * MIB,
        60 * MIB
    );
    system.group("sys/fs/cgroup/work.slice/job.scope", &(2 * GIB).to_string(), 2 * GIB - 20 * MIB, &stat);
    assert_eq!(system.available(), Some(1880 * MIB));
}

#[test]
fn every_group_above_counts() {
    let system = System::new("0::/work.slice/job.scope\n", UNIFIED);
    let group = |path: &str, limit: u64, used: u64| {
        system.group(&format!("sys/fs/cgroup/{path}"), &limit.to_string(), used, "inactive_file 0\n");
    };
    group("work.slice/job.scope", 8 * GIB, GIB);
    group("work.slice", GIB, 300 * MIB);
    assert_eq!(system.available(), Some(724 * MIB));
    // A group that is full leaves nothing, and that is not an overflow.
    group("work.slice", GIB, 2 * GIB);
    assert_eq!(system.available(), Some(0));
    // A sibling is none of this process's groups.
    group("work.slice", 8 * GIB, GIB);
    group("work.slice/other.scope", MIB, MIB);
    assert_eq!(system.available(), Some(7 * GIB));
    system.write("sys/fs/cgroup/work.slice/memory.high", &format!("{}\n", 3 * GIB));
    assert_eq!(system.available(), Some(2 * GIB));
}

#[test]
fn groups_of_containers_are_found_by_their_mounts() {
    // A namespace: the process sees its group as the root.
    let namespace = System::new("0::/\n", UNIFIED);
    namespace.group("sys/fs/cgroup", &GIB.to_string(), 24 * MIB, "");
    assert_eq!(namespace.available(), Some(1000 * MIB));
    // No namespace, but only the container's group is mounted, at a place with a space.
    let mounts = "40 1 0:26 /docker/abc /my\\040groups ro - cgroup2 cgroup rw\n";
    let container = System::new("0::/docker/abc\n", mounts);
    container.group("my groups", &GIB.to_string(), 24 * MIB, "");
    assert_eq!(container.available(), Some(1000 * MIB));
    let nested = System::new("0::/docker/abc/inner\n", mounts);
    nested.group("my groups", "max", 0, "");
    nested.group("my groups/inner", &(2 * GIB).to_string(), GIB, "");
    assert_eq!(nested.available(), Some(GIB));
    // A process whose group lies outside of its namespace.
    let outside = System::new("0::/../other\n", UNIFIED);
    outside.group("sys/fs/cgroup", &GIB.to_string(), 24 * MIB, "");
    outside.write("sys/other", "");
    assert_eq!(outside.available(), Some(1000 * MIB));
}

#[test]
fn first_version_of_the_interface_is_read() {
    let groups = "12:pids:/user\n7:cpu,memory:/a/b\n1:name=systemd:/x\n0::/x\n";
    let mounts = "30 1 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                  31 1 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                  32 1 0:28 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n";
    let system = System::new(groups, mounts);
    let group = |path: &str, limit: u64, used: u64, stat: &str| {
        let path = format!("sys/fs/cgroup/memory/{path}");
        system.write(&format!("{path}/memory.limit_in_bytes"), &format!("{limit}\n"));
        system.write(&format!("{path}/memory.usage_in_bytes"), &format!("{used}\n"));
        system.write(&format!("{path}/memory.stat"), stat);
    };
    let stat = |limit: u64, file: u64| {
        format!("inactive_file 1\nhierarchical_memory_limit {limit}\ntotal_inactive_file {file}\ntotal_active_file 0\n")
    };
    // The largest number of pages is no limit, whatever the size of a page.
    for unlimited in [9_223_372_036_854_771_712, 9_223_372_036_854_710_272] {
        group("a/b", unlimited, GIB, &stat(unlimited, 0));
        assert_eq!(system.available(), Some(16 * GIB));
    }
    group("a/b", 9_223_372_036_854_771_712, 3 * GIB, &stat(4 * GIB, GIB));
    assert_eq!(system.available(), Some(2 * GIB));
    group("a", GIB, 512 * MIB, "");
    assert_eq!(system.available(), Some(512 * MIB));
}

/// A group of this machine with a limit, removed at the end.
struct RealGroup(PathBuf);

impl RealGroup {
    fn create(limit: u64) -> Result<Self, String> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let directories = group_directories(Path::new("/"), &groups, &mounts);
        let parents = directories.iter().rev().chain(&directories);
        let mut reason = "no group is mounted".to_owned();
        for parent in parents {
            let group = RealGroup(parent.join(format!("actbench-test-{}", std::process::id())));
            match fs::create_dir(&group.0) {
                Err(error) => reason = format!("{}: {error}", group.0.display()),
                Ok(()) => match ["memory.max", "memory.limit_in_bytes"].iter().find(|name| group.0.join(name).exists())
                {
                    None => reason = format!("{}: no memory controller", group.0.display()),
                    Some(name) => match fs::write(group.0.join(name), limit.to_string()) {
                        Err(error) => reason = format!("{name}: {error}"),
                        Ok(()) => return Ok(group),
                    },
                },
            }
        }
        Err(reason)
    }
}

impl Drop for RealGroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn limit_of_a_real_group_is_found_by_a_process_in_it() {
    const LIMIT: u64 = 256 << 20;
    if std::env::var_os("ACTBENCH_TEST_IN_GROUP").is_some() {
        let left = available().unwrap();
        assert!(left <= LIMIT && left > LIMIT / 4, "{left} bytes");
        return;
    }
    let group = match RealGroup::create(LIMIT) {
        Ok(group) => group,
        Err(reason) => {
            eprintln!("skipped: no cgroup can be created: {reason}");
            return;
        }
    };
    // The shell enters the group, then becomes this test.
    let script = format!("echo $$ > '{}/cgroup.procs' && exec \"$0\" \"$@\"", group.0.display());
    let name = "measure::limit::tests::limit_of_a_real_group_is_found_by_a_process_in_it";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &script]).arg(std::env::current_exe().unwrap()).args(["--exact", name]);
    let output = command.env("ACTBENCH_TEST_IN_GROUP", "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if text.contains("cgroup.procs") {
        eprintln!("skipped: a process cannot enter a cgroup: {text}");
        return;
    }
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}
