"""Read image files: all formats of Pillow, TIFF, and NumPy arrays."""
