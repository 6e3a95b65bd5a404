"""Servers with certificates of an authority of one's own."""

import datetime
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3bu.errors import (
    StorageError,
)
from tests.servers import (
    rclone_server,
)
from tests.test_storage_s3.opening import (
    BUCKET,
    HASTY,
    opened,
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with an authority's certificate, and a server's certificate and key signed by it."""
    directory = tmp_path_factory.mktemp("authority")
    write_certificates(directory)
    return directory


def write_certificates(directory: Path) -> None:
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    now = datetime.datetime.now(datetime.UTC)
    root_key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test root")])

    def certificate(name: x509.Name, key: ec.EllipticCurvePrivateKey, *, is_root: bool) -> bytes:
        builder = (
            x509.CertificateBuilder(root_name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
        )
        if not is_root:
            address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
        return builder.sign(root_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    server_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test server")])
    (directory / "root.pem").write_bytes(certificate(root_name, root_key, is_root=True))
    (directory / "server.pem").write_bytes(certificate(server_name, server_key, is_root=False))
    (directory / "server.key").write_bytes(
        server_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


@pytest.fixture(scope="module")
def tls_url(authority: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    base = tmp_path_factory.mktemp("tls")
    (base / "buckets" / BUCKET).mkdir(parents=True)
    options = ("--cert", str(authority / "server.pem"), "--key", str(authority / "server.key"))
    with rclone_server(base / "buckets", base / "log", *options, scheme="https") as url:
        yield url


def test_an_authority_of_ones_own_is_trusted_where_it_is_named(
    tls_url: str, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authority / "root.pem"))
    with opened(tls_url) as storage:
        storage.put("data/x", b"hello", {})
        assert storage.open("data/x").read() == b"hello"
        assert storage.exists()


def test_an_unknown_authority_is_told(tls_url: str) -> None:
    with opened(tls_url, patience=HASTY) as storage:
        for call in (lambda: storage.open("x"), lambda: storage.put("x", b"", {}), storage.exists):
            with pytest.raises(StorageError, match="certificate") as raised:
                call()
            assert raised.value.hint is not None
            assert "AWS_CA_BUNDLE" in raised.value.hint


def test_a_missing_file_of_authorities_is_named(monkeypatch: pytest.MonkeyPatch, rclone_url: str) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "/no/such/file.pem")
    with opened(rclone_url) as storage, pytest.raises(StorageError, match=r"/no/such/file\.pem"):
        storage.put("x", b"", {})
