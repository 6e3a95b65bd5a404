"""One run: what it publishes, what it carries forward, and when it would rather publish nothing."""
