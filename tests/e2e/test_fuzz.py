"""A short run of `make fuzz`: bad requests of every kind against the real process."""

import pytest
from e2e.support_e2e import Serve
from fuzz.run import Plan, fuzz


@pytest.mark.timeout(120)
async def test_bad_requests_change_nothing_end_nothing_and_are_no_internal_errors(serve: Serve) -> None:
    verdict = await fuzz(await serve(), Plan(seed=20261125, requests=5_000))
    assert verdict.failures == [], verdict.report
