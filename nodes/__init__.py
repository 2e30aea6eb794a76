"""The steps, one a file, in flow order: ingest, extraction_gate, extract, gate, enrich, summarize, conclude."""
