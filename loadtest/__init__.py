"""Load tests: what users point at their own installation."""
