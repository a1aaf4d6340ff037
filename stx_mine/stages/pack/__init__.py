"""`pack`: bind negatives and write batches into Parquet shards."""
