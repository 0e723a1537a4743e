"""Images with masks: built-in tasks, folders, torchvision's data sets and a user's own samples (`zoo.open_data`)."""
