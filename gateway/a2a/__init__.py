"""A2A: one skill, running a kubectl command, for agents that speak nothing else. There is no model in it."""
