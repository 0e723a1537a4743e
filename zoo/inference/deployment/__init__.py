"""Make a model faster for inference: rewrite its graph, and choose the fastest runtime whose error is accepted."""
