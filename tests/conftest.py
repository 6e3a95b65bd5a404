"""What all tests share: a clean environment, and S3 servers on 127.0.0.1.

- `environment` (always): no AWS, s3bu or proxy variable of the developer's reaches a test; `HOME` and `S3BU_HOME` lie
  in `tmp_path`, and the credentials are those that the servers know.
- `quick_scrypt` (always): what a test encrypts in its own process takes no second of scrypt; the programs that it
  starts do it in full, and so does a test that asks for `slow_scrypt`.
- `moto_url`, `rclone_url`: URLs of servers that run for the whole session.
- `make_bucket(url)`: makes a fresh bucket at one of them and returns its name.
- `make_client(url)`: a boto3 client, to look at a server from another side.
"""

import os
import signal
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import quicken_scrypt
from tests.servers import ACCESS_KEY, SECRET_KEY, moto_server, rclone_server, s3_client

_FOREIGN = ("AWS_", "S3BU_", "RCLONE_", "MOTO_", "BOTO_")
_FOREIGN_NAMES = {
    "REQUESTS_CA_BUNDLE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "INITIAL_NO_AUTH_ACTION_COUNT",
}

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # So a shell starts what runs in the background, and so would be the programs that tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(_FOREIGN) or name.upper() in _FOREIGN_NAMES:
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("S3BU_HOME", str(home / ".s3bu"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    # Where there are no credentials, the metadata service of a cloud machine would be asked for some.
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="session", autouse=True)
def quick_scrypt() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        quicken_scrypt(monkeypatch)
        yield monkeypatch


@pytest.fixture
def slow_scrypt(quick_scrypt: pytest.MonkeyPatch) -> Iterator[None]:
    quick_scrypt.undo()
    yield
    quicken_scrypt(quick_scrypt)


@pytest.fixture(scope="session")
def moto_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with moto_server(tmp_path_factory.mktemp("moto") / "log") as url:
        yield url


@pytest.fixture(scope="session")
def rclone_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    base = tmp_path_factory.mktemp("rclone")
    root = base / "buckets"
    root.mkdir()
    with rclone_server(root, base / "log") as url:
        yield url


@pytest.fixture(scope="session")
def clients() -> Iterator[dict[str, Any]]:
    made: dict[str, Any] = {}
    yield made
    for client in made.values():
        client.close()


@pytest.fixture
def make_client(clients: dict[str, Any]) -> Callable[[str], Any]:
    def make(url: str) -> Any:
        if url not in clients:
            clients[url] = s3_client(url)
        return clients[url]

    return make


@pytest.fixture
def make_bucket(make_client: Callable[[str], Any]) -> Callable[[str], str]:
    def make(url: str) -> str:
        bucket = f"test-{uuid.uuid4().hex[:16]}"
        make_client(url).create_bucket(Bucket=bucket)
        return bucket

    return make
