"""Choose and compare what was measured. Torch-free."""
