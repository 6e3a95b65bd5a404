"""Make a repository and the keys for it: what is missing, and never over what is there."""

from dataclasses import dataclass, field

from s3bu.crypto.identities import new_identity
from s3bu.crypto.recipients import parse_recipients
from s3bu.errors import KeyringError, ObjectExists, RepositoryNotFoundError
from s3bu.keyring import Secret, new_secret, write_identities, write_secrets
from s3bu.repository import Repository, layout
from s3bu.repository.recipients import RecipientSet

_HEADER = "# age recipients: whoever holds an identity of one of them can read what is backed up from now on\n"


@dataclass(slots=True)
class Outcome:
    """What `init` made, as lines for the user, and who can read the repository; `made` is empty the second time."""

    recipients: RecipientSet
    made: list[str] = field(default_factory=list)


def init(repository: Repository, recipients_text: str | None, *, origin: str = "the recipients file") -> Outcome:
    """Make what is missing of storage, secrets, identities and recipients, and pin the recipients.

    Recipients come from `recipients_text`, else from the identities at hand, else from a new identity. A repository
    that has recipients keeps them: this machine joins it, and needs the secrets of the one that made it, not new ones.
    """
    made: list[str] = []
    if not repository.storage.exists():
        repository.storage.create()
        made.append(f"made {repository.storage.url}")
    _make_secrets(repository, made)
    try:
        recipients = repository.recipients()
    except RepositoryNotFoundError:
        text = recipients_text if recipients_text is not None else _own_recipients(repository, made)
        recipients = _put_recipients(repository, text, origin)
        made.append(f"wrote {layout.RECIPIENTS} into {repository.storage.url}")
    else:
        _refuse_others(recipients, recipients_text, origin, repository.storage.url)
    recipients.check_pin(repository.remembered.facts.recipients, repository.storage.url)
    repository.remembered.pin_recipients(recipients.fingerprint)
    return Outcome(recipients, made)


def _make_secrets(repository: Repository, made: list[str]) -> None:
    path = repository.keyring.secrets_path
    if path.exists():
        _ = repository.keyring.secrets  # a broken or open file is told now, not at the first backup
        return
    if _has_private_objects(repository):
        raise KeyringError(
            f"{path}: no such file, and {repository.storage.url} has jobs or snapshots that another passphrase opens",
            hint="copy secrets.yml from the machine that made them",
        )
    secret: Secret = new_secret()
    write_secrets(path, [secret])
    made.append(f"made {path} with a new passphrase")


def _has_private_objects(repository: Repository) -> bool:
    return any(next(repository.storage.list(prefix), None) is not None for prefix in ("jobs/", "manifests/"))


def _own_recipients(repository: Repository, made: list[str]) -> str:
    path = repository.keyring.identities_path
    if not path.exists():
        identity, recipient = new_identity()
        write_identities(path, [(identity, recipient)])
        made.append(f"made {path} with a new identity")
        return f"{recipient}\n"
    recipients = [identity.recipient for identity in repository.keyring.identities]
    if None in recipients:
        raise KeyringError(
            f"{path}: the recipient of an identity that is not X25519 cannot be told from it",
            hint="write its recipient into a file, and name that with --recipients-file",
        )
    return "".join(f"{recipient}\n" for recipient in recipients)


def _put_recipients(repository: Repository, text: str, origin: str) -> RecipientSet:
    """Store the recipients: X25519 ones where the original looks, which any other line would stop, others beside."""
    recipients = RecipientSet.parse({origin: text})
    parts = {layout.RECIPIENTS: True, layout.FURTHER_RECIPIENTS: False}
    for key, is_native in parts.items():
        lines = [one.text for one in recipients.recipients if (one.kind == "x25519") == is_native]
        if lines or is_native:
            body = _HEADER + "".join(f"{line}\n" for line in lines)
            try:
                repository.storage.put(key, body.encode(), {}, create=True)
            except ObjectExists:
                continue  # another machine was quicker; what it wrote is what holds
    return repository.recipients()


def _refuse_others(recipients: RecipientSet, text: str | None, origin: str, url: str) -> None:
    if text is not None and set(parse_recipients(text, origin)) != set(recipients.recipients):
        raise KeyringError(
            f"{url} has other recipients than {origin}, and init overwrites nothing",
            hint=f"`s3bu keys list {url}` shows them",
        )
