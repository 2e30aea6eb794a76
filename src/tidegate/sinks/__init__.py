"""Sinks: where the results of threads go that events began."""
