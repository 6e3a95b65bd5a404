"""Small bodies as exchanges: what a put sends, and what its answer means."""

import base64
import hashlib
from collections.abc import Mapping, Sequence

from s3bu.storage import Put
from s3bu.storage.s3_exchange import Exchange

CONFLICT = "ConditionalRequestConflict"


def put_exchange(path: str, put: Put, common: Sequence[str], *, has_checksum: bool) -> Exchange:
    """Return the exchange that stores a body; `common` are the header lines of all requests."""
    digest = hashlib.sha256(put.body)
    headers = [f"x-amz-content-sha256: {digest.hexdigest()}", "Content-Type:", "Expect:", *common]
    if has_checksum:
        headers.append(f"x-amz-checksum-sha256: {base64.b64encode(digest.digest()).decode()}")
    if put.create:
        headers.append("If-None-Match: *")
    headers.extend(_metadata(put.metadata))
    return Exchange("PUT", path, headers, put.body)


def _metadata(metadata: Mapping[str, str]) -> list[str]:
    # A header without a value is one that libcurl leaves out, unless it ends with a semicolon.
    return [f"x-amz-meta-{name}: {value}" if value else f"x-amz-meta-{name};" for name, value in metadata.items()]
