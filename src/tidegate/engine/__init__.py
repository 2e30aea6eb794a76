"""Engines: who runs threads."""
