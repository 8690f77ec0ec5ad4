"""What holds for every test: generated examples are the same each time in `make test`, and new ones in `make fuzz`."""

import os

from hypothesis import settings

settings.register_profile("steady", derandomize=True)
if "OPENLINE_FUZZ_EXAMPLES" not in os.environ:
    settings.load_profile("steady")
