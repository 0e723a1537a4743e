"""Measure one group of trials in one process."""
