"""An agent without a model: it looks for what is wrong in a cluster, by way of openline.

| | |
|---|---|
| `words` | what the diagnosis and a transport say to each other |
| `diagnosis` | what to ask first, and which pod to look into |
| `pods` | which pods are in trouble, and what a pod's status says of it |
| `crashes`, `waits` | what to ask next of a container that ends, and of one that does not get ready |
| `addresses`, `settings` | where a container goes, and who told it to |
| `following`, `refusals` | asks step by step, and knows what to do when openline says no |
| `via_mcp`, `via_rest`, `via_sdk` | three ways to openline; any one of them is enough |
| `__main__` | the command line |

The diagnosis is a generator: it yields a `Step`, is sent an `Answer`, and returns a `Finding`. So it knows nothing of
networks, runs the same in all transports, and is tested with canned answers.
"""
