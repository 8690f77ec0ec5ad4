"""The client's own log lines: those of the `logging` module under `openline.client`, silent unless the program listens.

Our programs configure structlog; a library must not write where nobody asked it to.
"""

import logging

import structlog
from structlog.typing import FilteringBoundLogger

logging.getLogger("openline").addHandler(logging.NullHandler())

log: FilteringBoundLogger = structlog.wrap_logger(
    logging.getLogger("openline.client"),
    processors=[structlog.stdlib.filter_by_level, structlog.processors.LogfmtRenderer(key_order=["event"])],
    wrapper_class=structlog.stdlib.BoundLogger,
    cache_logger_on_first_use=True,
)
