"""The executor: layers on real arrays, with NumPy."""
