"""Load tests: what users point at their own installation."""

import os

# Programs are started here beside gRPC's threads. Its fork handlers ended one child in ten with a segmentation fault
# (grpcio 1.85.1); without them none of 400 did. gRPC must hear this, and that its lines are not wanted, before it is
# imported, and so it is first of all.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
from openline.engine import prefer_low_latency

prefer_low_latency()
