"""Language: models that write."""
