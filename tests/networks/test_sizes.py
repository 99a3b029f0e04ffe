"""The channels that bring a network to a wanted size, against all numbers of channels."""

from __future__ import annotations

import functools
import json

import pytest

from nge_search.architecture.load import load_architecture
from nge_search.cli import main
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


def test_show_chooses_the_channels(capsys):
    """And all of DARTS_V2 at its published size comes back."""
    assert main(["show", "darts_v2", "--cells", "2", "--target-macs", "60M", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["target"] == {"macs": 6e7}
    assert abs(found["macs"] / 6e7 - 1) < 0.02
    graphs = load_architecture("darts_v2").graphs
    assert network_size(FAMILIES["cifar"].build(graphs, found["channels"], 2, 10), "macs", 32) == found["macs"]


def test_show_counts_grey_images(capsys):
    words = ["show", "darts_v1", "--channels", "4", "--cells", "1", "--image-size", "8", "--image-channels", "1"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    built = FAMILIES["cifar"].build(GRAPHS, 4, 1, 10, 1)
    assert found["macs"] == network_size(built, "macs", 8, 1)
    assert found["params"] == network_size(built, "params", 8)


def test_show_measures_latency(capsys):
    words = ["show", "darts_v1", "--channels", "4", "--cells", "1", "--image-size", "8", "--latency", "--json"]
    assert main([*words, "--batch", "3", "--threads", "1", "--device", "cpu"]) == 0
    found = json.loads(capsys.readouterr().out)["latency"]
    assert (found["batch"], found["threads"], found["passes"], found["warm_up"]) == (3, 1, 15, 3)
    assert 0 < found["fastest"] <= found["seconds"] <= found["slowest"]


def test_show_says_that_images_are_too_many_for_the_memory(monkeypatch, capsys):
    def allocate(*_: object) -> None:
        raise RuntimeError("not enough memory:\nyou tried to allocate 9 bytes")

    monkeypatch.setattr("nge_search.networks.latency.pass_seconds", allocate)
    assert main(["show", "darts_v1", "--channels", "1", "--cells", "1", "--batch", "7", "--latency"]) == 2
    error = capsys.readouterr().err
    assert "cannot be measured on images [7, 3, 32, 32]: not enough memory:" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--latency", "--batch", "0"], "--batch=0: must be between 1 and 4096"),
        (["--latency", "--threads", "-1"], "--threads=-1: must be between 1 and 4096"),
        (["--batch", "8"], "--batch, --threads and --device are of --latency; add it"),
        (["--device", "cpu"], "--batch, --threads and --device are of --latency; add it"),
        (["--image-channels", "0"], "--image-channels=0: must be between 1 and 4096"),
        (["--network", "imagenet", "--target-params", "300", "--cells", "1"], "2 to 1024 channels give"),
        (["--network", "imagenet", "--channels", "1", "--cells", "1"], "1 channels: the ImageNet network has at"),
        (["--latency", "--device", "tpu"], "--device"),
        (["--latency", "--batch", "many"], "--batch"),
        (["--target-macs", "many"], "--target-macs='many': give a number above 0"),
        (["--target-macs", "0"], "--target-macs='0': give a number above 0"),
        (["--target-macs=-600M"], "--target-macs='-600M': give a number above 0"),
        (["--target-params", "nan"], "--target-params='nan': give a number above 0"),
        (["--target-macs", "600MB"], "--target-macs='600MB': give a number above 0"),
        (["--target-macs", "1M", "--target-params", "1M"], "give it or --target-macs, not both"),
        (["--target-macs", "1M", "--channels", "8"], "--channels=8: --target-macs chooses them"),
        (["--target-params", "100", "--cells", "1"], "--target-params=100: 1 to 1024 channels give"),
    ],
)
def test_show_refuses_what_is_no_target(words, message, capsys):
    assert main(["show", "darts_v1", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
