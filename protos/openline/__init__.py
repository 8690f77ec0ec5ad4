"""openline: run commands in Kubernetes clusters that nobody can dial into.

This package is the contract, what both of its ends agree on, and the client.
"""

__version__ = "0.1.0"
