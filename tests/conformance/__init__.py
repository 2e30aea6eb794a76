"""Every saver against LangGraph's suite for savers, and the JSON files against LangGraph's saver in memory."""
