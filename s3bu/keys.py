"""The keys of a repository as their user sees them: who can read it, and whether this machine accepted that."""

from s3bu.errors import UsageError
from s3bu.repository import Repository
from s3bu.repository.recipients import RecipientSet


def accept(repository: Repository, fingerprint: str | None) -> RecipientSet:
    """Pin the recipients that stand in the repository now, if the fingerprint is theirs.

    Without a fingerprint those that are seen are named, and nothing is accepted: whoever accepts must have compared.
    """
    recipients = repository.recipients()
    if fingerprint is None or fingerprint.upper() != recipients.fingerprint:
        said = "no fingerprint was given" if fingerprint is None else f"their fingerprint is not {fingerprint}"
        raise UsageError(
            f"the recipients of {repository.storage.url} were not accepted: {said}",
            hint=f"compare `s3bu keys list` with what you know, then accept {recipients.fingerprint}",
        )
    repository.remembered.pin_recipients(recipients.fingerprint)
    return recipients
