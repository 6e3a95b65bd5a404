"""The schema of the local index, one append-only step a file; shipped as `s3bu.migrations`.

A step that has landed is never changed: files of each schema so far lie in `tests/indexes/` and must migrate. Each
step ends by setting `user_version` to its number, so that a file shows its schema without this package.
"""

from sqlite_utils.migrations import Migrations

from .m001_intervals import m001_intervals
from .m002_spans import m002_spans
from .m003_lines import m003_lines
from .m004_evidence import m004_evidence

migrations = Migrations("s3bu")
migrations()(m001_intervals)
migrations()(m002_spans)
migrations()(m003_lines)
migrations()(m004_evidence)
