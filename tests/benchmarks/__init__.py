"""Programs that measure: `python -m tests.benchmarks.<name>`; what they found is in RESULTS.md."""
