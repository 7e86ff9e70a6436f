"""Registry, logging, process groups, files and pictures: nothing here knows about models."""
