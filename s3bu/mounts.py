"""Which file system a directory lies on, and which of them hold no files of anybody: the kernel makes them up."""

import os

# Not autofs: something is mounted over it as soon as it is opened, and those are files of somebody.
PSEUDO = frozenset(
    {
        "binfmt_misc",
        "bpf",
        "cgroup",
        "cgroup2",
        "configfs",
        "debugfs",
        "devpts",
        "devtmpfs",
        "efivarfs",
        "fusectl",
        "hugetlbfs",
        "mqueue",
        "nsfs",
        "proc",
        "pstore",
        "rpc_pipefs",
        "securityfs",
        "selinuxfs",
        "sysfs",
        "tracefs",
    }
)


def file_system(device: int) -> str:
    """Return the kind of the file system that a device number stands for; empty where that cannot be known.

    Only Linux tells.
    """
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            mounts = file.read().splitlines()
    except OSError:
        return ""
    wanted = b"%d:%d" % (os.major(device), os.minor(device))
    for mount in mounts:
        fields, _, rest = mount.partition(b" - ")
        if fields.split(b" ")[2] == wanted:
            return os.fsdecode(rest.split(b" ")[0])
    return ""


def pseudo_file_system(device: int) -> str | None:
    """Return the kind of the pseudo file system that a device number stands for, or `None`."""
    kind = file_system(device)
    return kind if kind in PSEUDO else None
