"""s3bu: encrypted, deduplicated backups of directories in a bucket or directory of your own."""

__version__ = "0.1.0"
