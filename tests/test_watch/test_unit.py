"""The unit for systemd, read back by systemd itself where it is there."""

import shutil
import subprocess
from pathlib import Path

import pytest

from s3bu.watch.unit import print_unit
from tests.running import IS_CI

ODD = ['50% of "it"', "a b", "$HOME", "${HOME}", "back\\slash", "it's", "semi;colon", ";", "", "tab\tand\nline", "ü"]


def test_a_unit_of_a_user_says_where_it_goes_and_how_it_is_switched_on() -> None:
    text = print_unit(["/opt/s3bu/bin/s3bu", "watch"], {}, is_system=False)
    assert "# Write this into ~/.config/systemd/user/s3bu-watch.service, and then:" in text
    assert "systemctl --user enable --now s3bu-watch.service" in text
    assert "WantedBy=default.target" in text
    assert "loginctl enable-linger" in text
    assert "network-online" not in text, "a user's manager has no such target"


def test_a_unit_of_the_system_waits_for_the_network() -> None:
    text = print_unit(["/opt/s3bu/bin/s3bu", "watch"], {"S3BU_HOME": "/root/100% mine"}, is_system=True)
    assert "# Write this into /etc/systemd/system/s3bu-watch.service, and then:" in text
    assert "After=network-online.target" in text
    assert "WantedBy=multi-user.target" in text
    assert '\nEnvironment="S3BU_HOME=/root/100%% mine"\n' in text
    for line in ("Type=notify", "NotifyAccess=main", "Restart=always", "ExecReload=kill -HUP $MAINPID", "UMask=0077"):
        assert f"\n{line}\n" in text


def test_words_are_quoted_as_systemd_reads_them() -> None:
    (line,) = [one for one in print_unit(["/s3bu", *ODD], {}, is_system=True).splitlines() if "ExecStart" in one]
    assert line == (
        'ExecStart=/s3bu "50%% of \\"it\\"" "a b" $$HOME $${HOME} "back\\\\slash" "it\'s" "semi;colon" ";" "" '
        '"tab\\x09and\\x0aline" ü'
    )


@pytest.mark.parametrize("is_system", [True, False])
def test_systemd_finds_no_fault_in_it(tmp_path: Path, *, is_system: bool) -> None:
    if shutil.which("systemd-analyze") is None:
        assert not IS_CI, "systemd-analyze is missing"
        pytest.skip("systemd-analyze is missing")
    program = shutil.copy("/bin/true", tmp_path / "my s3bu")
    unit = tmp_path / "s3bu-watch.service"
    unit.write_text(print_unit([str(program), *ODD], {"S3BU_HOME": "/a b/%"}, is_system=is_system))
    manager = [] if is_system else ["--user"]
    command = ["systemd-analyze", *manager, "verify", "--man=no", str(unit)]
    environ = {"XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    ended = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=60, check=False)
    about_it = [line for line in ended.stderr.splitlines() if "s3bu" in line]
    assert (about_it, ended.returncode) == ([], 0), ended.stderr
