"""Read, check and draw masks."""
