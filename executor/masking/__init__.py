"""What of a process's output leaves the cluster: text without control sequences, Secrets and credentials. Pure.

Bytes in pieces of any size go through four stages, each of which holds back only what it cannot judge yet, within a
bound: `controls`, `lines`, `objects`, `credentials`; `stream` puts them in a row. Whatever the bytes are, the time
is linear in their number: the patterns have no two ways to match the same bytes, and a failed one is not tried again.
"""
