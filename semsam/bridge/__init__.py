"""semsam inside other frameworks."""
