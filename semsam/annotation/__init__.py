"""Naming masks: labellers, and an engine that runs them over any number of photos."""
