"""One folder a stage: its options, its work, its closing sentences, its pure decisions."""
