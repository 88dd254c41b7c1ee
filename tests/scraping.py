"""Reading /metrics as Prometheus does."""

import asyncio
import math
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True)
class Scraped:
    """What one scrape has told: values by name and labels, and the kind of each family."""

    values: dict[tuple[str, frozenset[tuple[str, str]]], float] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)

    def get(self, name: str, **labels: str) -> float:
        """The value of one series; no number, which equals nothing, if it is not there."""
        return self.values.get((f"operation_service_{name}", frozenset(labels.items())), math.nan)

    def has(self, name: str) -> bool:
        return any(each == f"operation_service_{name}" for each, _ in self.values)

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.values}


def parsed(text: str) -> Scraped:
    """What a text says; each family may be there once, as the format wants it."""
    scraped = Scraped()
    for family in text_string_to_metric_families(text):
        assert family.name not in scraped.kinds, f"{family.name} is there twice"
        scraped.kinds[family.name], scraped.told[family.name] = family.type, family.documentation
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in scraped.values, f"{key} is there twice"
            scraped.values[key] = sample.value
    return scraped


async def http_get(address: str, path: str = "/metrics", method: str = "GET") -> tuple[int, str]:
    """The status and the body of one request."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
        async with asyncio.timeout(20):
            head, _, body = (await reader.read(-1)).decode().partition("\r\n\r\n")
    finally:
        writer.close()
    return int(head.split()[1]), body


async def scrape(address: str) -> Scraped:
    """Ask once."""
    status, body = await http_get(address)
    assert status == 200
    return parsed(body)
