"""Readers of datasets, and the names under which they are found."""
