"""The settings of a Dask cluster."""

from __future__ import annotations

import pytest

from server.config import load_settings
from server.errors import InvalidRequestError


@pytest.mark.parametrize("address", ["tcp://10.0.0.1:8786", "tls://scheduler.example:8786"])
def test_addresses_of_schedulers_are_taken(address: str) -> None:
    assert load_settings(dask_address=address).dask_address == address


@pytest.mark.parametrize(
    "address", ["10.0.0.1:8786", "http://10.0.0.1:8787", "tcp://10.0.0.1", "tcp://10.0.0.1:99999"]
)
def test_others_are_refused_with_what_was_sent(address: str) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        load_settings(dask_address=address)
    (violation,) = raised.value.violations
    assert "dask_address: " in violation.description
    assert address.removeprefix("tcp://") in violation.description
