"""The segmentation model: how it is built, and what it is made of."""
