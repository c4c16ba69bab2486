"""Tests of speech as spikes."""
