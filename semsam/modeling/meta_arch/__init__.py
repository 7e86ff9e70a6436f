"""Whole models."""

from . import promptable
