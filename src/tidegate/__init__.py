"""Documents in, enriched and sourced summaries out, by a LangGraph pipeline that survives failing services."""
