"""Bad words on the command line and bad configuration files: refused before anything is created."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

#: What is typed after `nge`, and what the message must hold.
COMMAND_LINES = {
    # commands and flags
    "serach": ("'serach'", "did you mean 'search'", "--help"),
    "frobnicate": ("'frobnicate'", "--help"),
    "''": ("unknown command", "--help"),
    "search --confg x.yaml": ("--confg", "nge search --help"),
    "search --config": ("--config", "expected one argument"),
    "search --config missing.yaml": ("'missing.yaml'", "does not exist"),
    "search --print-config=yes": ("--print-config", "nge search --help"),
    "show": ("genotype", "nge show --help"),
    "show darts_v2 --channels 0": ("--channels=0", "between 1 and 4096"),
    "show darts_v2 --channels many": ("--channels", "'many'"),
    "show darts_v2 --network imagnet": ("--network", "'imagnet'", "cifar"),
    "show darts_v2 twice": ("twice", "nge show --help"),
    "show darts_v2 --draw /proc/drawings": ("/proc/drawings",),
    "derive nowhere": ("'nowhere'", "metrics.jsonl", "run folder"),
    "derive nowhere --epoch last": ("--epoch", "'last'"),
    "report nowhere": ("'nowhere'", "not a folder"),
    "report .": ("'.'", "not the folder of a run"),
    # words that are no settings
    "search 25": ("'25'", "key=value"),
    "search =25": ("'=25'", "key=value"),
    "search search.epochs=[1": ("search.epochs=[1:", "whole number"),
    # unknown and misspelt keys
    "search search.epoch=3": ("'search.epoch'", "did you mean 'search.epochs'"),
    "search serach.epochs=3": ("'serach.epochs'", "did you mean 'search.epochs'"),
    "search epochs=3": ("'epochs'", "did you mean 'search.epochs'"),
    "search colour=blue": ("'colour'", "--help lists all keys"),
    "search network.channels=3": ("'network.channels'", "did you mean 'supernet.channels'"),
    "search 'run={name: x, overwite: true}'": ("'run.overwite'", "did you mean 'run.overwrite'"),
    "eval search.epochs=3": ("'search.epochs'", "did you mean 'train.epochs'"),
    # a section for a value, a value for a section
    "search search=3": ("search=3", "section", "search.KEY=value"),
    "search seed.first=3": ("seed=", "one value"),
    # wrong types
    "search search.epochs=many": ("search.epochs=many", "whole number"),
    "search search.epochs=2.5": ("search.epochs=2.5", "whole number"),
    "search search.epochs=true": ("search.epochs=true", "whole number"),
    "search search.epochs=": ("search.epochs=", "whole number"),
    "search search.epochs=[1,2]": ("search.epochs=[1,2]", "whole number"),
    "search search.learning_rate=fast": ("search.learning_rate=fast", "a number"),
    "search run.overwrite=1": ("run.overwrite=1", "true or false"),
    "search run.dir=[a]": ("run.dir='[a]'", "quotes"),
    "search supernet.operations=skip_connect": ("supernet.operations=skip_connect", "list of names"),
    "search supernet.operations=[1,2]": ("supernet.operations=1", "allowed are"),
    "search 'run.name=${run.dir}'": ("run.name=", "not supported"),
    "search 'run.name=!!bool maybe'": ("run.name='!!bool maybe'", "quotes"),
    "search run.name=../up": ("run.name='../up'", "run.dir="),
    "search run.name=~": ("run.name='~'", "home folder"),
    "search 'run.name=name '": ("run.name='name '", "blank"),
    "search data.root=": ("data.root=''", "not blank"),
    "search run.dir=~nobody-of-that-name/run": ("run.dir", "home folder"),
    "search seed=0x10": ("seed=0x10", "plain digits"),
    "search seed=5__0": ("seed=5__0", "plain digits"),
    "eval task=segmentation train.eval_scales=0x1": ("train.eval_scales=0x1", "0.1 to 8"),
    "search 'seed=???'": ("seed", "no value"),
    # outside the limits
    "search search.epochs=0": ("search.epochs=0", "at least 1"),
    "search seed=-1": ("seed=-1", "at least 0"),
    "search seed=99999999999": ("seed=99999999999", "at most 2147483647"),
    "search threads=5000": ("threads=5000", "at most 1024"),
    "search search.learning_rate=.nan": ("search.learning_rate=nan", "finite"),
    "search search.learning_rate=1e999": ("search.learning_rate=inf", "finite"),
    "search search.momentum=1": ("search.momentum=1", "below 1"),
    "search data.valid_fraction=0": ("data.valid_fraction=0", "above 0"),
    "search search.batch_size=1": ("search.batch_size=1", "at least 2"),
    "search device=gpu": ("device=gpu", "auto, cpu, cuda", "did you mean 'cpu'"),
    "search data.name=cifar": (
        "data.name=cifar",
        "digits, cifar10, cifar100, imagenet, tiny_imagenet, folder",
        "did you mean 'cifar10'",
    ),
    "search supernet.operations=[skip_connect,sep_conv3x3]": (
        "supernet.operations=sep_conv3x3",
        "did you mean 'sep_conv_3x3'",
    ),
    "search search.epochs=3 search.epochs=three": ("search.epochs=three",),
    # combinations that cannot be
    "search supernet.operations=[skip_connect]": ("supernet.operations=", "at least two"),
    "search supernet.operations=[skip_connect,skip_connect]": ("supernet.operations=", "twice"),
    "search embedding.input_dim=5": ("embedding.input_dim=5", "must be at least 6", "vertex"),
    "search search.learning_rate_min=1": ("search.learning_rate_min=1", "search.learning_rate=0.025"),
    "eval train.learning_rate_min=1": ("train.learning_rate_min=1", "train.learning_rate=0.025"),
    "search data.flip=true": ("data.flip=true", "data.name=digits"),
    "search data.download=true": ("data.download=true", "data.name=digits"),
    "search data.image_size=9": ("data.image_size=9", "0, 8 and 16"),
    "search data.cutout=3": ("data.cutout=3", "at most 2"),
    "search data.crop_padding=8": ("data.crop_padding=8", "at most 7"),
    "eval data.name=cifar10 data.cutout=17": ("data.cutout=17", "at most 16"),
    "eval network.auxiliary=true": ("network.auxiliary=true", "data.name=digits"),
}

#: A configuration file's content, and what the message must hold besides the file's name.
CONFIG_FILES: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
    "misspelt key": ("search:\n  epoch: 3\n", ("'search.epoch'", "did you mean 'search.epochs'")),
    "dotted key": ("search.epochs: 3\n", ("'search.epochs'", "section")),
    "numeric key": ("search:\n  1: 2\n", ("'search.1'",)),
    "null key": ("null: 2\n", ()),
    "list as key": ("? [a, b]\n: c\n", ("not valid YAML",)),
    "key twice": ("seed: 1\nseed: 2\n", ("'seed' is given twice", "line 2")),
    "wrong type": ("seed: 1.0\n", ("seed=1.0", "whole number")),
    "value for a section": ("search: 3\n", ("search=3", "section")),
    "section without keys": ("search:\n", ("'search' is a section",)),
    "section for a value": ("seed:\n  a: 3\n", ("seed=", "one value")),
    "list for a section": ("search:\n  - epochs: 3\n", ("'search' is a section",)),
    "names in a list of lists": ("supernet:\n  operations: [[a], b]\n", ("supernet.operations=", "list of names")),
    "binary value": ("run:\n  name: !!binary aGVsbG8=\n", ("tag", "binary", "line 2")),
    "zero byte in a path": ('run:\n  dir: "a\\0b"\n', ("run.dir=",)),
    "reference": ("run:\n  name: ${oc.env:HOME}\n", ("run.name=", "not supported")),
    "a list": ("- a\n- b\n", ("list",)),
    "a word": ("hello\n", ("hello",)),
    "tabs": ("search:\n\tepochs: 3\n", ("not valid YAML", "line 2")),
    "bracket left open": ('run: {name: "x\n', ("not valid YAML",)),
    "undefined alias": ("seed: *b\n", ("not valid YAML", "alias")),
    "alias of itself": ("a: &a\n  b: *a\n", ("not valid YAML", "contains itself")),
    "two documents": ("---\nseed: 1\n---\nseed: 2\n", ("not valid YAML", "single document")),
    "python object": ('seed: !!python/object/apply:os.mkdir ["pwned"]\n', ("not valid YAML", "python/object")),
    "tag of another type": ("seed: !!int ''\n", ("tag", "int", "line 1")),
    "tag of a set": ("supernet:\n  operations: !!set {skip_connect}\n", ("tag", "set", "line 2")),
    "merged with a list": ("seed: &a [1]\n<<: *a\n", ("not valid YAML", "merging")),
    "octal number": ("seed: 010\n", ("seed=010", "plain digits")),
    "minutes and seconds": ("search:\n  epochs: 1:30\n", ("search.epochs=1:30", "plain digits")),
    "a day that is not there, in a path": ("run:\n  dir: [2001-13-45]\n", ("run.dir=", "quotes")),
    "random bytes": (bytes(range(255, 0, -1)), ("not a text file",)),
    "UTF-16": ("seed: 1\n".encode("utf-16"), ("not a text file",)),
    "zero byte": (b"seed: 1\n\0", ("not valid YAML",)),
    "2 MiB": ("#" * (2 << 20), ("2097152 bytes", "more than")),
    "long line": ("a" * 100_000 + "\n", ()),
    "long key": ("? " + "a" * 100_000 + "\n: 1\n", ("unknown key",)),
    "nested 5,000 deep": ("a: " + "[" * 5000 + "]" * 5000, ("nested too deeply",)),
    "aliases that multiply": (
        "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)),
        ("not valid YAML", "too many values"),
    ),
}

#: A name for the arguments, what is typed after `nge`, and what the message must hold.
HUGE_WORDS = {
    "key": (["search", "x" * 100_000 + "=3"], ("unknown key 'xxx",)),
    "command": (["x" * 100_000], ("unknown command 'xxx",)),
    "flag": (["search", "--" + "x" * 100_000], ("--xxx", "nge search --help")),
    "number of 4,000 digits": (["search", "search.epochs=" + "9" * 4000], ("search.epochs=999", "at most")),
    "number of 5,000 digits": (["search", "search.epochs=" + "9" * 5000], ("search.epochs=999",)),
    "hexadecimal name": (["search", "run.name=0x" + "f" * 6000], ("run.name", "255 bytes")),
    "hexadecimal number": (["search", "seed=0x" + "f" * 6000], ("seed=0xfff", "plain digits")),
    "choice": (["search", "device=" + "x" * 100_000], ("device=xxx", "auto, cpu, cuda")),
    "genotype": (["eval", "network.genotype=" + "x" * 100_000], ("xxx",)),
    "open brackets": (["search", "run.name=" + "[" * 5000], ("run.name",)),
    "closed brackets": (["search", "run.name=" + "[" * 900 + "]" * 900], ("run.name", "quotes")),
    "not UTF-8": (["search", "\udcff=3"], ("unknown key",)),
    "escape sequence": (["search", "\x1b[2Jseed=3"], ("unknown key",)),
}


@pytest.mark.parametrize("typed", COMMAND_LINES)
def test_command_line(typed: str, refuse: Callable[..., str]) -> None:
    refuse(*shlex.split(typed), says=COMMAND_LINES[typed], creates="nothing")


@pytest.mark.parametrize("name", CONFIG_FILES)
def test_config_file(name: str, refuse: Callable[..., str]) -> None:
    content, says = CONFIG_FILES[name]
    Path("my.yaml").write_bytes(content.encode() if isinstance(content, str) else content)
    refuse("search", "--config", "my.yaml", says=("my.yaml", *says), creates="nothing")


@pytest.mark.parametrize("name", HUGE_WORDS)
def test_huge_or_hostile_word(name: str, refuse: Callable[..., str]) -> None:
    words, says = HUGE_WORDS[name]
    refuse(*words, says=says, creates="nothing")


def test_config_file_is_a_folder(refuse: Callable[..., str]) -> None:
    Path("my.yaml").mkdir()
    refuse("search", "--config", "my.yaml", says=("'my.yaml'", "is a folder"), creates="nothing")


def test_config_file_is_a_pipe(refuse: Callable[..., str]) -> None:
    os.mkfifo("my.yaml")
    refuse("search", "--config", "my.yaml", says=("'my.yaml'", "named pipe"), creates="nothing")


def test_later_word_does_not_hide_an_error_of_the_file(refuse: Callable[..., str]) -> None:
    Path("my.yaml").write_text("search:\n  epochs: many\n")
    refuse("search", "--config", "my.yaml", "search.epochs=3", says=("my.yaml", "search.epochs=many"))


@pytest.mark.parametrize("command", ["search", "eval"])
def test_gpu_that_is_not_there(command: str, refuse: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    refuse(command, "device=cuda", says=("device=cuda", "device=cpu", "nge doctor"), creates="nothing")


def test_more_processes_than_gpus(refuse: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every rank says so, the first one too, which has a GPU: it would wait for the others for ever."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    numbers = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": 1}
    for name, value in (*numbers.items(), ("MASTER_ADDR", "localhost")):
        monkeypatch.setenv(name, str(value))
    refuse("search", "device=cuda", says=("device=cuda", "--nproc_per_node", "device=cpu"), creates="nothing")
