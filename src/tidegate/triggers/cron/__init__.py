"""The cron trigger, and its schedule."""
