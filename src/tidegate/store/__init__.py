"""What is kept: the databases, the documents, the thread registry, and the clock."""
