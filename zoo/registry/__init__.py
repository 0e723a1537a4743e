"""Find encoders and decoders: what plugins declare, and the registry of all that are installed."""
