"""Registry, logging, process groups and files: nothing here knows about images."""
