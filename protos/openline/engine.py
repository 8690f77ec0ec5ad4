"""How gRPC waits for sockets: programs of ours ask for the poller that is quicker, where there is a choice.

Since grpcio 1.80 its "event engine" hands each event from thread to thread, which doubles the latency of a stream that
is not busy (docs/performance.md). The experiment that turns it off will be gone one day; then this changes nothing.
"""

import os

_EXPERIMENTS = (
    "-event_engine_client,-event_engine_listener,-event_engine_callback_cq,-event_engine_for_all_other_endpoints"
)


def prefer_low_latency() -> None:
    """For a program's own process, before grpc is imported. Who has set the variable keeps their own value."""
    os.environ.setdefault("GRPC_EXPERIMENTS", _EXPERIMENTS)
