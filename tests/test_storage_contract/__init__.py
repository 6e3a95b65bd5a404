"""One suite for every storage: what `s3bu.storage.Storage` promises, kept by S3, by a directory and by the fake."""
