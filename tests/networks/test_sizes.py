"""The channels that bring a network to a wanted size, against all numbers of channels."""

from __future__ import annotations

import functools

import pytest

from nge_search.architecture.load import load_architecture
from nge_search.errors import UserError
from nge_search.networks.families import FAMILIES
from nge_search.networks.sizes import MOST_CHANNELS, nearest_channels, network_size
from nge_search.settings.amounts import read_amount, write_amount

GRAPHS = load_architecture("darts_v1").graphs


@functools.cache
def build(channels):
    return FAMILIES["cifar"].build(GRAPHS, channels, 1, 10)


@pytest.mark.parametrize("of", ["macs", "params"])
def test_no_other_number_of_channels_is_nearer(of):
    sizes = {channels: network_size(build(channels), of, 4) for channels in range(1, 12)}
    between = (sizes[5] + sizes[6]) // 2
    for target in (sizes[1], sizes[4], sizes[4] + 1, between - 1, between + 1, sizes[10]):
        channels, size = nearest_channels(build, of, 4, target, "target")
        assert size == sizes[channels]
        assert abs(size - target) == min(abs(own - target) for own in sizes.values())


def test_a_target_beyond_all_channels_is_refused_with_both_ends(monkeypatch):
    monkeypatch.setattr("nge_search.networks.sizes.MOST_CHANNELS", 8)
    low, high = (network_size(build(channels), "params", 4) for channels in (1, 8))
    assert MOST_CHANNELS == 1024
    for target in (low - 1, high + 1):
        with pytest.raises(UserError) as refused:
            nearest_channels(build, "params", 4, target, "--target-params")
        assert f"1 to 8 channels give {write_amount(low)} to {write_amount(high)} parameters" in str(refused.value)
    assert nearest_channels(build, "params", 4, high, "--target-params") == (8, high)


def test_amounts_are_read_as_people_write_them():
    written = ("600M", "3.3m", "1.2G", "50_000_000", "5e7", "600k", "12")
    assert [read_amount(text, "key") for text in written] == [6e8, 3.3e6, 1.2e9, 5e7, 5e7, 6e5, 12]
    assert [write_amount(number) for number in (6e8, 1.25e9, 900, 5000)] == ["600M", "1.25G", "900", "5k"]
