"""`estimate`: what a training step will embed, score, hold and take."""
