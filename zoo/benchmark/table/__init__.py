"""The table of what was measured. Torch-free."""
