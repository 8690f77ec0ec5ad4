"""Which command ids may have a result in the store already: those that ended here lately, and those that are not new.

A caller may choose its command's id, and ask for it again after its replica was killed. Looking each one up would cost
every command a round trip to Redis, so an id is believed to be new for as long as the clocks of callers may be off.
"""

from collections import OrderedDict

from openline.ids import made_at

# A caller asks again within its own timeout, mostly; an executor that ran an id lately refuses to run it again anyway.
NEW_S = 30.0
MAX_IDS = 50_000


class Recent:
    """The ids of commands that this replica has settled, the newest of them."""

    __slots__ = ("_ids",)

    def __init__(self) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Recent ids={len(self._ids)}>"

    def add(self, command_id: str) -> None:
        self._ids[command_id] = None
        if len(self._ids) > MAX_IDS:
            self._ids.popitem(last=False)

    def may_be_done(self, command_id: str, *, clock_s: float) -> bool:
        """Whether the store should be asked first; `clock_s` is seconds since 1970."""
        return command_id in self._ids or abs(clock_s - made_at(command_id)) > NEW_S
