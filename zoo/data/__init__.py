"""Images with masks: the built-in tasks, folders, torchvision's data sets, and what looks through them (`zoo.open_data`)."""
