"""Pure decisions of `ingest`."""
