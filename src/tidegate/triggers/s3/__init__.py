"""The S3 trigger: messages of a queue, the objects that they tell of, and what can fail."""
