"""Weights and models as files: state dicts, saved models, the hub."""
