"""Run a benchmark on the machines of a Ray cluster."""
