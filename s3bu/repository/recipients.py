"""The recipients of a repository as one thing: parsed, and compared by fingerprint with what was accepted."""

from collections.abc import Mapping
from dataclasses import dataclass

from s3bu.crypto.recipients import Recipient, fingerprint, parse_recipients
from s3bu.errors import RecipientsChangedError, RepositoryNotFoundError


@dataclass(frozen=True, slots=True)
class RecipientSet:
    """Who can read what is stored from now on; never empty."""

    recipients: tuple[Recipient, ...]
    fingerprint: str

    @classmethod
    def parse(cls, texts: Mapping[str, str]) -> "RecipientSet":
        """Parse the recipient files, given by key."""
        recipients = tuple(one for key, text in texts.items() for one in parse_recipients(text, key))
        if not recipients:
            raise RepositoryNotFoundError(
                f"{' and '.join(texts)}: no recipient stands there, so nothing can be encrypted",
                hint="put the public key (age1…) of an identity there",
            )
        return cls(recipients, fingerprint(recipients))

    def check_pin(self, accepted: str | None, url: str) -> None:
        """Refuse recipients that are not the accepted ones.

        The recipient files are public and carry no signature: whoever can write to the bucket could add a key of
        their own and read every backup from then on (docs/architecture.md, "What it protects against").
        """
        if accepted is None or accepted == self.fingerprint:
            return
        raise RecipientsChangedError(
            f"the recipients of {url} changed: accepted are {accepted}, there stand {self.fingerprint}",
            hint=f"look at them with `s3bu keys list {url}`; if the change was yours, "
            f"`s3bu keys accept {url} {self.fingerprint}`",
        )
