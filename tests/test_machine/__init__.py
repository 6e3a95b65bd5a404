"""Backup and restore against a model in memory: whatever happens to a tree, snapshots say what the model says."""
