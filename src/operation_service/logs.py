"""Where log lines go, and what they look like."""

import logging
import sys


def log_to_standard_error(who: str = "") -> None:
    """Write log lines to standard error.

    Args:
        who: Which of several processes writes them. Empty: there is only one, or the one that speaks for all.
    """
    who = f"{who} " if who else ""
    line = f"%(asctime)s %(levelname)s {who}%(name)s: %(message)s"
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format=line)
