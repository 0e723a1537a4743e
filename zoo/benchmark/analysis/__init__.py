"""Select, compare and recommend measured results. Torch-free."""
