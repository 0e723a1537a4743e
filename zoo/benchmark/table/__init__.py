"""The table of measured results. Torch-free."""
