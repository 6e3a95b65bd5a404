"""A unit of systemd that starts one command line as a service."""

from collections.abc import Mapping, Sequence

_PLACES = {
    True: ("/etc/systemd/system", "systemctl", "multi-user.target", "journalctl"),
    False: ("~/.config/systemd/user", "systemctl --user", "default.target", "journalctl --user"),
}
_NAME = "s3bu-watch.service"
_LINGER = "# That it also runs while you are not logged in:  loginctl enable-linger\n"
_LEFT = "# Set here, and not taken over: {names}. Credentials go into a profile.\n"
_UNIT = """\
# Write this into {directory}/{name}, and then:
#   {control} daemon-reload && {control} enable --now {name}
# What it does:  {control} status {name}  and  {journal} -u {name}
{linger}{left}
[Unit]
Description=Watch and back up with s3bu
Documentation=man:systemd.service(5)
{after}
[Service]
Type=notify
NotifyAccess=main
{environment}ExecStart={command}
ExecReload=kill -HUP $MAINPID
# It says that it lives at half of this. A walk of many directories may keep it from that for a while.
WatchdogSec=5min
# The first walk of a large tree may take minutes.
TimeoutStartSec=infinity
TimeoutStopSec=30
KillMode=mixed
# So it ends when it is told to before it has begun.
SuccessExitStatus=143
Restart=always
RestartSec=30
Nice=10
IOSchedulingClass=idle
UMask=0077

[Install]
WantedBy={target}
"""
_NETWORK = "Wants=network-online.target\nAfter=network-online.target\n"


def print_unit(command: Sequence[str], environ: Mapping[str, str], *, is_system: bool, left: Sequence[str] = ()) -> str:
    """Return the text of a unit, of the system or of a user, that runs a command with these variables set.

    The first word of the command is the absolute path of a program. `left` names variables that are set and not taken
    over, since they may hold secrets: it never says what is in them.
    """
    directory, control, target, journal = _PLACES[is_system]
    program, *arguments = command
    return _UNIT.format(
        name=_NAME,
        directory=directory,
        control=control,
        journal=journal,
        linger="" if is_system else _LINGER,
        left=_LEFT.format(names=", ".join(left)) if left else "",
        after=_NETWORK if is_system else "",
        # The program itself is never looked at for variables, and values of variables are not either.
        environment="".join(f"Environment={_quoted(f'{name}={value}')}\n" for name, value in environ.items()),
        command=" ".join([_quoted(program), *(_quoted(one).replace("$", "$$") for one in arguments)]),
        target=target,
    )


def _quoted(word: str) -> str:
    """Return a word as systemd reads it back: in quotes where it needs them, with % twice, as it begins a specifier."""
    text = "".join(_escaped(one) for one in word).replace("%", "%%")
    is_plain = word and not set(word) & set(" \t\n\"'\\;")
    return text if is_plain else f'"{text}"'


def _escaped(one: str) -> str:
    if one in '"\\':
        return "\\" + one
    if one.isprintable():
        return one
    return "".join(f"\\x{byte:02x}" for byte in one.encode("utf-8", "surrogateescape"))
