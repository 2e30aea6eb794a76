"""Documents of every format -> text in blocks."""
