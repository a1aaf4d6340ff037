"""`evaluate`: retrieval metrics of models on held-out pairs, and the card of a trained model."""
