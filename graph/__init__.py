"""The graph: its steps, its edges, and the pipeline that runs it by thread ID."""
