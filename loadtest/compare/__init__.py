"""The command `compare`: openline and its rivals side by side, in turns, in one run."""
