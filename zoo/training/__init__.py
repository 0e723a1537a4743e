"""Training: a pairing fitted on images with masks, resumed where it was interrupted, tested, and kept (`zoo.train`)."""
