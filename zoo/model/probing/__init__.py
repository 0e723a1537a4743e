"""Use any module as an encoder: find its feature maps, and run no more than they need."""
