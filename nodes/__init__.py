"""The steps and the gates before them, one a file: ingest, extract, enrich, summarize, conclude."""
