"""The tree that a restore writes."""
