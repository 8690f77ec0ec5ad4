"""openline: run commands in Kubernetes clusters that nobody can dial into.

This package is the contract, what both of its ends agree on, and the client.
"""

import os

# gRPC's C core writes lines of its own to stderr, in between ours: what they say, our lines say as well. It reads this
# when it is first imported, which every program does after this package. Who sets it keeps their own value.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

__version__ = "0.2.0"
