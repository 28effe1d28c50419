"""Speed against named baselines, one command each: `python -m benchmarks.NAME`."""
