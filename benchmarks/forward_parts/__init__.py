"""What `benchmarks/forward.py` is made of."""
