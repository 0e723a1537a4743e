"""Do the work of one measuring process: compute costs, measure cold starts and rounds, or train a model."""
