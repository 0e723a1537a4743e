"""The segmentation model: its parts, and how they are built."""
