"""Predict the masks of images of any size, whole or in tiles, for a single image or for a folder of images."""
