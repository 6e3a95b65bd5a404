"""The package as it is installed: what comes with it, and what starting it costs."""

import importlib
import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import s3bu

ROOT = Path(__file__).parents[1]
HEAVY = {"boto3", "botocore", "cryptography", "pycurl", "pyrage", "sqlite_utils", "tqdm", "yaml"}


def test_the_migrations_are_shipped_inside_the_package() -> None:
    module = importlib.import_module("s3bu.migrations")
    assert module.migrations.name == "s3bu"


def test_every_package_of_the_source_is_shipped() -> None:
    shipped = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "s3bu").rglob("__init__.py")}
    assert set(shipped) == found | {"s3bu.migrations"}


def test_the_version_is_told_once() -> None:
    assert importlib.metadata.version("s3bu") == s3bu.__version__


def test_help_imports_nothing_that_it_does_not_need() -> None:
    code = "import sys; from s3bu.cli import main; main(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage: s3bu COMMAND" in done.stdout
    assert HEAVY.isdisjoint(name.partition(".")[0] for name in done.stderr.split())


def test_the_program_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "s3bu", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == s3bu.__version__
