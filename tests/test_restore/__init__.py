"""A restore, from a snapshot or an object to files."""
