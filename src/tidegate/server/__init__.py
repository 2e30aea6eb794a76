"""`tidegate serve`: one process that takes documents in, runs their threads and delivers their results."""
