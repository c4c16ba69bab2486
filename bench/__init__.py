"""Measure speed, memory and growth, and write the pages of stored results."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""Root folder of the checkout."""
