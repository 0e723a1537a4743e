"""Code that several packages share."""
