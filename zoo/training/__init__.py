"""Train a pairing on images with masks, resume an interrupted training, and test the result (`zoo.train`)."""
