"""The outside world, each part behind one small module: documents, recognisers, the enrichment API, chat models."""
