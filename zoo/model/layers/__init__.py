"""Layers and operations that encoders and decoders share."""
