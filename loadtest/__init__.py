"""Load tests: what users point at their own installation."""

# First of all, since it tells gRPC to keep its own lines to itself, and gRPC must hear that before it is imported.
import openline  # noqa: F401
