"""What S3 does beyond the contract of all storages."""
