"""`ingest`: read pairs and a corpus, number distinct texts, drop and count the rest."""
