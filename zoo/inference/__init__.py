"""Use a model: prediction, deployment, export, and the runtimes that deployment and export share."""
