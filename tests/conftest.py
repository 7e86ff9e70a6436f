"""Settings of the suite."""

from hypothesis import settings

# A busy machine is not a fault.
settings.register_profile("semsam", deadline=None)
settings.load_profile("semsam")
