"""The results store: one SQLite file. Torch-free."""
