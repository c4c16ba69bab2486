"""Measures speed, memory and growth, and writes the pages of stored results."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The checkout."""
