"""Which file system a directory lies on, and which of them hold no files of anybody: the kernel makes them up."""

import os
import re
from typing import NamedTuple

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

_LOCAL = frozenset(
    {
        "bcachefs",
        "btrfs",
        "exfat",
        "ext2",
        "ext3",
        "ext4",
        "f2fs",
        "hfsplus",
        "jfs",
        "nilfs2",
        "ntfs3",
        "ramfs",
        "reiserfs",
        "tmpfs",
        "udf",
        "vfat",
        "xfs",
        "zfs",
    }
)


class Mount(NamedTuple):
    """One line of the mount table, as far as it says what lies where."""

    number: int
    device: bytes
    root: bytes
    path: bytes
    kind: str


def is_local(kind: str) -> bool:
    """Say whether all that changes on a file system of that kind changes through this machine, and in one place.

    Not so on a network, with overlays, whose lower layers have a life of their own, and with what a program makes up.
    """
    return kind in _LOCAL


def mounts_of(path: bytes) -> list[Mount] | None:
    """Return the mount on which an absolute path lies, and behind it those below it; `None` where nothing tells."""
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            table = [_mount(line) for line in file.read().splitlines()]
    except OSError:
        return None
    above = [mount for mount in table if _is_at_or_below(path, mount.path)]
    below = [mount for mount in table if mount.path != path and _is_at_or_below(mount.path, path)]
    # Of several mounts at one path, or one over another, the last one counts.
    lowest = max(above, key=lambda mount: (len(mount.path), table.index(mount)), default=None)
    return None if lowest is None else [lowest, *below]


def is_uncovered(mount: Mount) -> bool:
    """Say whether its path leads to a mount now, and not to another one that lies over it, or over a directory above.

    What is mounted when it is first opened (autofs) is not mounted by that.
    """
    try:
        descriptor = os.open(mount.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        with open(f"/proc/self/fdinfo/{descriptor}", "rb") as file:
            return b"mnt_id:\t%d\n" % mount.number in file.read()
    finally:
        os.close(descriptor)


def _mount(line: bytes) -> Mount:
    fields, _, rest = line.partition(b" - ")
    number, _, device, root, path, *_ = fields.split(b" ")
    return Mount(int(number), device, _unescaped(root), _unescaped(path), os.fsdecode(rest.split(b" ")[0]))


def _unescaped(text: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), text)


def _is_at_or_below(path: bytes, top: bytes) -> bool:
    return path == top or path.startswith(top.rstrip(b"/") + b"/")


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
