"""Ids that no other change ever has, in any replica: 32 hexadecimal digits."""

import itertools
import secrets


class ChangeIds:
    """Makes them: 20 random digits for the process, and a count. More random ones would be a system call for each."""

    def __init__(self) -> None:
        self._process = secrets.token_hex(10)
        self._count = itertools.count()

    def new(self) -> str:
        """Return one that was never there."""
        return f"{self._process}{next(self._count):012x}"
