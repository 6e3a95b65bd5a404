"""Which file systems hold no files: what the kernel makes up, and what would be endless, or different at every look."""

import os

PSEUDO = frozenset(
    {
        b"autofs",
        b"binfmt_misc",
        b"bpf",
        b"cgroup",
        b"cgroup2",
        b"configfs",
        b"debugfs",
        b"devpts",
        b"devtmpfs",
        b"efivarfs",
        b"fusectl",
        b"hugetlbfs",
        b"mqueue",
        b"nsfs",
        b"proc",
        b"pstore",
        b"rpc_pipefs",
        b"securityfs",
        b"selinuxfs",
        b"sysfs",
        b"tracefs",
    }
)


def pseudo_file_system(device: int) -> str | None:
    """Return the kind of the pseudo file system that a device number stands for, or `None`; asked of each mount anew.

    Only Linux tells; elsewhere there is none.
    """
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            mounts = file.read().splitlines()
    except OSError:
        return None
    wanted = b"%d:%d" % (os.major(device), os.minor(device))
    for mount in mounts:
        fields, _, rest = mount.partition(b" - ")
        kind = rest.split(b" ")[0]
        if fields.split(b" ")[2] == wanted:
            return os.fsdecode(kind) if kind in PSEUDO else None
    return None
