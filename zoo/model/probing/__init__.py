"""Use any module as an encoder: find its feature maps, and run only what they depend on."""
