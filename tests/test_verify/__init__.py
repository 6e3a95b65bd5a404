"""Verify: what is damaged is found with whom it concerns, put back where it can be, and nothing sound is accused."""
