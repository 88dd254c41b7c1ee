"""INTERNAL that the service cannot help: gRPC's core gives it before any code of the service is asked.

Neither a channel option nor a handler or interceptor sees these calls; only a proxy in front could. No client that is
built on a gRPC library can send them either: the libraries check what they send. Everything else that is INTERNAL is a
failure of the run.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Allowance:
    """A message of gRPC's core, and why it stays."""

    message: re.Pattern[str]
    reason: str

    def __str__(self) -> str:
        return f"INTERNAL {self.message.pattern!r}: {self.reason}"


ALLOWED = (
    Allowance(
        re.compile(r"Error parsing '[^']*' metadata(: illegal base64 encoding)?"),
        "a header that gRPC knows, or a -bin one, has a value that HPACK's parser in gRPC's core cannot take",
    ),
    Allowance(
        re.compile(
            r"(Illegal header key: [\s\S]*|Metadata keys cannot be zero length|Duplicate '[^']*' header received)"
        ),
        "the name of a header is none, or one is there twice; refused by the same parser",
    ),
    Allowance(
        re.compile(r"Compression bit set but no encoding configured"),
        "what gRPC's protocol (compression.md) demands for a compressed message without a grpc-encoding",
    ),
)


def allowance(reaction: str, message: str) -> Allowance | None:
    """What allows a reaction; None if nothing does."""
    if reaction != "INTERNAL":
        return None
    return next((each for each in ALLOWED if each.message.fullmatch(message)), None)
