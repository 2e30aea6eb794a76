"""Summaries: by a chat model, and by choosing the document's own sentences."""
