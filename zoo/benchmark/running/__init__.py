"""Run a benchmark: what is measured where, in which process."""
