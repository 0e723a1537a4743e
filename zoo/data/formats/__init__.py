"""Read images: PNG, JPEG and whatever Pillow reads, TIFF, NumPy arrays."""
