"""Every saver against LangGraph's suite for savers, and against LangGraph's saver in memory."""
