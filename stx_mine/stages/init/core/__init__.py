"""Pure decisions of `init`: a model, a size of batches, sizes of held-out parts."""
