"""Watch sources: record what changes in a journal, and start backups of it."""
