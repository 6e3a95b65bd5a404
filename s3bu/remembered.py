"""What this machine remembers of a repository between runs, besides its index: a small file below `$S3BU_HOME`.

The recipients that were pinned on first use stand here and not in the index, since the index may be deleted at any
time and a pin may not; so does whether the storage has conditional writes, which is found out once.
"""

import contextlib
import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from s3bu.errors import S3buError


@dataclass(frozen=True, slots=True)
class Facts:
    """What is kept: `recipients` is the fingerprint that was accepted, `None` stands for not known yet."""

    repository: str
    recipients: str | None = None
    has_conditional_writes: bool | None = None


def _check(kept: dict[str, Any]) -> None:
    """Refuse what this program never writes."""
    recipients, has_conditional_writes = kept.get("recipients"), kept.get("has_conditional_writes")
    if not isinstance(recipients, str | None) or not isinstance(has_conditional_writes, bool | None):
        raise ValueError("something else where a fact belongs")


class Remembered:
    """The facts about the repository of that `Storage.identity`, in `home`; read again before each change of it."""

    def __init__(self, home: Path, identity: str) -> None:
        name = hashlib.sha256(os.fsencode(identity)).hexdigest()[:32]
        self.path = home / "repositories" / f"{name}.json"
        self._identity = identity
        self.facts = self._load()

    def _load(self) -> Facts:
        try:
            kept = json.loads(self.path.read_bytes())
            facts = Facts(**kept)
            _check(kept)
        except FileNotFoundError:
            return Facts(self._identity)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise S3buError(
                f"{self.path}: cannot be read ({why})",
                hint="it holds the accepted recipients of the repository; see to it that this user may read it",
            ) from error
        except (ValueError, TypeError, RecursionError) as error:
            raise S3buError(
                f"{self.path}: cannot be read ({error})",
                hint="it holds the accepted recipients of the repository; compare them with `s3bu keys list`, "
                "remove the file, and accept them again",
            ) from error
        return replace(facts, repository=self._identity)

    def pin_recipients(self, fingerprint: str) -> None:
        """Keep the fingerprint of the recipients that backups may encrypt to from now on."""
        self._save(replace(self._load(), recipients=fingerprint))

    def keep_conditional_writes(self, *, has: bool) -> None:
        """Keep whether the storage refuses to create what is there already."""
        self._save(replace(self._load(), has_conditional_writes=has))

    def _save(self, facts: Facts) -> None:
        partial = self.path.with_suffix(f".{os.getpid()}")
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with partial.open("w") as file:
                json.dump(asdict(facts), file)
                file.flush()
                os.fsync(file.fileno())
            partial.rename(self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise S3buError(f"{self.path}: cannot be written ({(error.strerror or str(error)).lower()})") from error
        self.facts = facts
