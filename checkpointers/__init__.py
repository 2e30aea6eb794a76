"""Where threads live: one saver a file, all behind `open_checkpointer`."""
