"""Triggers: what starts threads without anybody calling."""
