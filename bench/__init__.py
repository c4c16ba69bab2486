"""Measures speed, memory and growth, and writes the pages of stored results."""
