"""What restic keeps of 200 random times by random rules: asked of the program, and kept in `restic.json`.

`python -m tests.retention.restic` makes the file anew, which takes a minute of work.
"""

import json
import os
import random
import subprocess
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

KEPT = Path(__file__).with_name("restic.json")
RULES = ("last", "hourly", "daily", "weekly", "monthly", "yearly")
_NOW = datetime(2026, 11, 1, tzinfo=UTC)


def draw_times(chance: random.Random, number: int) -> list[datetime]:
    """Return different times of the past, some close together, some years apart, some at the ends of periods."""
    times: set[datetime] = set()
    while len(times) < number:
        ago = timedelta(seconds=int(10 ** chance.uniform(0, 8.3)))
        moment = (_NOW - ago).replace(microsecond=0)
        if chance.random() < 0.2:
            moment = moment.replace(hour=0, minute=0, second=0) - timedelta(seconds=chance.randrange(2))
        times.add(moment)
    return sorted(times, reverse=True)


def draw_rules(chance: random.Random) -> dict[str, str]:
    """Return some rules with what restic takes for them."""
    rules = {rule: str(int(10 ** chance.uniform(0, 2.3))) for rule in RULES if chance.random() < 0.4}
    if chance.random() < 0.4 or not rules:
        parts = [f"{chance.randrange(most)}{unit}" for unit, most in zip("ymdh", (4, 15, 40, 50), strict=True)]
        rules["within"] = "".join(part for part in parts if chance.random() < 0.6 and part[0] != "0") or "1m"
    return rules


class Restic:
    """A repository of restic with tiny snapshots of given times, in UTC."""

    def __init__(self, directory: Path, times: list[datetime]) -> None:
        self._environment = os.environ | {"RESTIC_PASSWORD": "x", "RESTIC_REPOSITORY": f"{directory}/repo", "TZ": "UTC"}
        self._ask("init", "-q")
        (directory / "source").write_text("a source")
        for moment in times:
            self._ask("backup", "-q", "--time", f"{moment:%Y-%m-%d %H:%M:%S}", str(directory / "source"))

    def kept(self, rules: dict[str, str]) -> set[str]:
        """Return the times that it would keep."""
        options = [word for rule, value in rules.items() for word in (f"--keep-{rule}", value)]
        (group,) = json.loads(self._ask("forget", "--dry-run", "--json", *options))
        return {one["time"] for one in group["keep"] or ()}

    def _ask(self, *arguments: str) -> bytes:
        command = ["restic", "--no-cache", *arguments]
        return subprocess.run(command, env=self._environment, check=True, capture_output=True, timeout=60).stdout


def ask_restic(seed: int, ntimes: int, npolicies: int) -> dict[str, Any]:
    """Return times, and for each of many rules the numbers of those that restic keeps."""
    chance = random.Random(seed)
    times = draw_times(chance, ntimes)
    written = [f"{moment:%Y-%m-%dT%H:%M:%SZ}" for moment in times]
    cases = []
    with tempfile.TemporaryDirectory() as directory:
        restic = Restic(Path(directory), times)
        for _ in range(npolicies):
            rules = draw_rules(chance)
            kept = restic.kept(rules)
            cases.append({"rules": rules, "kept": [number for number, one in enumerate(written) if one in kept]})
    return {"times": written, "cases": cases}


if __name__ == "__main__":
    KEPT.write_text(json.dumps(ask_restic(1, 200, 60)).replace("{", "\n{") + "\n")
