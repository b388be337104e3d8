"""usable_cpus: affinity, and the quotas of cgroups of both versions, in folders that look as the kernel's do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import workq
from workq.given.cpus import cgroup_quota

V2 = "36 32 0:30 {from_} {at} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "40 32 0:34 {from_} {at} rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct"


def kernel(root: Path, group: str, mount: str, **files: str) -> str:
    """Write what /proc and /sys show of one process; ``files`` are paths below the mount point, with ``__`` for ``/``."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(group + "\n")
    (root / "proc/self/mountinfo").write_text("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n" + mount + "\n")
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("cpu_", "cpu.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return str(root)


@pytest.mark.parametrize(
    ("text", "cpus"), [("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1), ("max 100000", None), ("", None), ("what", None)]
)
def test_the_quota_of_a_cgroup_of_version_2_is_rounded_up(tmp_path: Path, text: str, cpus: int | None) -> None:
    root = kernel(tmp_path, "0::/job", V2.format(from_="/", at="/sys/fs/cgroup"), sys__fs__cgroup__job__cpu_max=text)
    assert cgroup_quota(root) == cpus


@pytest.mark.parametrize(("quota", "cpus"), [("300000", 3), ("250001", 3), ("-1", None), ("0", None)])
def test_the_quota_of_a_cgroup_of_version_1_is_read_where_it_is_mounted(tmp_path: Path, quota: str, cpus: int | None) -> None:
    root = kernel(
        tmp_path,
        "12:memory:/other\n4:cpu,cpuacct:/job",
        V1.format(from_="/", at="/sys/fs/cgroup/cpu,cpuacct"),
        **{"sys__fs__cgroup__cpu,cpuacct__job__cpu_cfs_quota_us": quota, "sys__fs__cgroup__cpu,cpuacct__job__cpu_cfs_period_us": "100000"},
    )
    assert cgroup_quota(root) == cpus


def test_of_nested_cgroups_the_narrowest_counts_whichever_level_it_is_on(tmp_path: Path) -> None:
    root = kernel(
        tmp_path,
        "0::/user/session/job",
        V2.format(from_="/", at="/sys/fs/cgroup"),
        sys__fs__cgroup__user__cpu_max="200000 100000",
        sys__fs__cgroup__user__session__cpu_max="max 100000",
        sys__fs__cgroup__user__session__job__cpu_max="800000 100000",
    )
    assert cgroup_quota(root) == 2


def test_in_a_container_whose_group_has_the_hosts_name_what_is_mounted_counts(tmp_path: Path) -> None:
    root = kernel(tmp_path, "0::/docker/4f2a", V2.format(from_="/elsewhere", at="/sys/fs/cgroup"), sys__fs__cgroup__cpu_max="400000 100000")
    assert cgroup_quota(root) == 4


def test_a_mount_that_begins_below_the_root_is_followed_from_there(tmp_path: Path) -> None:
    root = kernel(
        tmp_path,
        "0::/docker/4f2a/job",
        V2.format(from_="/docker/4f2a", at="/sys/fs/my\\040cgroup"),
        **{"sys__fs__my cgroup__job__cpu_max": "100000 100000", "sys__fs__my cgroup__cpu_max": "700000 100000"},
    )
    assert cgroup_quota(root) == 1


def test_where_nothing_is_mounted_or_readable_there_is_no_bound(tmp_path: Path) -> None:
    assert cgroup_quota(str(tmp_path)) is None
    assert cgroup_quota(kernel(tmp_path, "0::/job", "not a line of mountinfo")) is None


def test_the_affinity_of_the_process_bounds_it() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert workq.usable_cpus() == 1
        assert workq.Category("one").max_workers == 2
    finally:
        os.sched_setaffinity(0, before)
    assert 1 <= workq.usable_cpus() <= len(before)
