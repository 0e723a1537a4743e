"""Masks: how they are read and drawn."""
