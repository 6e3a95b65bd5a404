"""pyrage, imported without being disturbed: a signal in the midst of that ends in a panic of its Rust code."""

from s3bu.interrupt import deferred

with deferred():
    import pyrage

__all__ = ["pyrage"]
