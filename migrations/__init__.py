"""The schema of the local index, one append-only step a file; shipped as `s3bu.migrations`."""

from sqlite_utils.migrations import Migrations

migrations = Migrations("s3bu")
