"""Find encoders and decoders: the specs that plugins declare, and the registry of all installed plugins."""
