"""The steps, one a file, in flow order: ingest, extract, gate, enrich, summarize, conclude."""
