"""What S3 asks for requests, storage and traffic: one dated table, of which a job may say otherwise (docs/jobs.md)."""

from collections.abc import Mapping
from dataclasses import dataclass

DATED = "2026-03"
REGION = "us-east-1"
LIST_PRICES: Mapping[str, float] = {
    "put": 0.005,
    "list": 0.005,
    "get": 0.0004,
    "storage": 0.023,
    "transfer": 0.09,
}
"""Dollars, S3 Standard in `REGION` as of `DATED`: for 1,000 requests of the first three kinds (the begin and the end of
an upload in parts are puts, and so is each part); for a GB stored for a month; for a GB sent out to the internet. The
first, dearest steps of each, and nothing of what is free."""
_GB = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Requests:
    """Numbers of requests by what they cost."""

    put: int = 0
    get: int = 0
    list: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.put + self.get + self.list


def price_of_requests(requests: Requests, prices: Mapping[str, float]) -> float:
    """Return what requests cost, in dollars; `prices` take the place of those of the list."""
    told = {**LIST_PRICES, **prices}
    return (requests.put * told["put"] + requests.get * told["get"] + requests.list * told["list"]) / 1_000


def price_of_storage(nbytes: int, prices: Mapping[str, float]) -> float:
    """Return what bytes cost for a month, in dollars."""
    return nbytes / _GB * {**LIST_PRICES, **prices}["storage"]


def price_of_transfer(nbytes: int, prices: Mapping[str, float]) -> float:
    """Return what it costs to fetch bytes out of the cloud, in dollars."""
    return nbytes / _GB * {**LIST_PRICES, **prices}["transfer"]
