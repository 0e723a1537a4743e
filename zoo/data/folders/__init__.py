"""Folders of images and masks: pair the files, read them once, and divide them into splits."""
