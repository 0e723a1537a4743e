"""Predict the masks of images of any size, whole or in tiles: of one image or of a folder of images."""
