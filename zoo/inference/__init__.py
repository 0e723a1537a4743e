"""Use a model: prediction, deployment, export, and the runtimes that two of them share."""
