"""Train a pairing on images with masks, resume an interrupted run, and test the result (`zoo.train`)."""
