"""Building blocks that know tensors but not models."""
