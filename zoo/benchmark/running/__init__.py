"""Run a benchmark: decide what is measured, in which order, and in which process on which machine."""
