"""Train, validate and test a model with Lightning: batches, steps, checkpoints, and the trainer itself."""
