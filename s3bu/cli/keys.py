"""`s3bu init` and `s3bu keys`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from s3bu.cli.opening import NOTHING_COMMON, Common, Location, open_repository
from s3bu.console import Console
from s3bu.console.text import shown
from s3bu.errors import UsageError

if TYPE_CHECKING:
    from s3bu.repository import Repository

keys = App(name="keys", help="Show the keys of a repository, and accept changed recipients.")


def init(
    repository: Location,
    /,
    *,
    recipients_file: Annotated[Path | None, Parameter()] = None,
    common: Common = NOTHING_COMMON,
) -> int:
    """Make what is missing of a repository and its keys.

    Nothing is ever overwritten, so it can be run again. On a second machine, copy secrets.yml there first; a machine
    that only backs up needs no identities.

    For example:

      s3bu init my-bucket
      s3bu init ./repository --recipients-file recipients.txt

    Parameters
    ----------
    recipients_file
        age recipients that can read the backups, instead of a new identity's
    """
    with open_repository(repository, common, "repositories") as opened, common.console() as console:
        run_init(opened, recipients_file, console)
    return 0


def run_init(repository: "Repository", recipients_file: Path | None, console: Console) -> None:
    """Run `init` and say what it made and what must be kept safe."""
    from s3bu.init import init as run  # noqa: PLC0415 - start-up counts

    text = _read_text(recipients_file) if recipients_file else None
    outcome = run(repository, text, origin=str(recipients_file))
    paths = (repository.keyring.secrets_path, repository.keyring.identities_path)
    kept = [str(path) for path in paths if path.exists()]
    url = repository.storage.url
    facts = {"repository": url, "made": outcome.made, "keep_safe": kept, "recipients": outcome.recipients.fingerprint}
    if outcome.made:
        advice = (
            f"\nKEEP SAFE, away from this machine: {shown(' and '.join(kept))}",
            "without these keys nothing can be restored, and nobody can make them again\n",
        )
        console.tell("initialized", facts, *map(shown, outcome.made), *advice)
    else:
        console.tell("initialized", facts, f"{shown(url)}: nothing to make, all is there")


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror.lower() if isinstance(error, OSError) and error.strerror else "not text"
        raise UsageError(f"{path}: cannot be read ({why})") from error


@keys.command(name="list")
def list_keys(repository: Location, /, *, common: Common = NOTHING_COMMON) -> int:
    """Show who can read what is backed up, and which keys this machine has.

    For example:

      s3bu keys list my-bucket
    """
    with open_repository(repository, common) as opened, common.console() as console:
        recipients, accepted = opened.recipients(), opened.remembered.facts.recipients
        own = {identity.recipient for identity in opened.keyring.identities} if _has_identities(opened) else set()
        secrets = [secret.id for secret in opened.keyring.secrets]
        state = {None: "not accepted on this machine yet", recipients.fingerprint: "accepted on this machine"}
        lines = [f"recipients {recipients.fingerprint}: {state.get(accepted, f'CHANGED, accepted are {accepted}')}"]
        for recipient in recipients.recipients:
            is_own = recipient.text in own
            lines.append(f"  {recipient.text}{'  (an identity of this machine)' if is_own else ''}")
        lines += ["passphrases, the last one encrypts:", *(f"  {shown(one)}" for one in secrets)]
        facts = {
            "fingerprint": recipients.fingerprint,
            "accepted_fingerprint": accepted,
            "recipients": [{"recipient": one.text, "is_own": one.text in own} for one in recipients.recipients],
            "passphrase_ids": secrets,
        }
        console.tell("keys", facts, *lines)
    return 0


def _has_identities(repository: "Repository") -> bool:
    return os.path.lexists(repository.keyring.identities_path)


@keys.command
def accept(repository: Location, fingerprint: str | None = None, /, *, common: Common = NOTHING_COMMON) -> int:
    """Accept the recipients of a repository, by their fingerprint.

    A backup is encrypted only to recipients that this machine accepted: the first ones it sees, and then what is
    accepted here. Whoever can write to the bucket could otherwise add a key of their own.

    For example:

      s3bu keys list my-bucket
      s3bu keys accept my-bucket ABCD-EFGH-IJKL-MNOP-QRST

    Parameters
    ----------
    fingerprint
        what `keys list` shows, once you have compared it
    """
    from s3bu.keys import accept as run  # noqa: PLC0415 - start-up counts

    with open_repository(repository, common, "repositories") as opened, common.console() as console:
        recipients = run(opened, fingerprint)
        console.summary({"fingerprint": recipients.fingerprint}, f"accepted {recipients.fingerprint}")
    return 0
