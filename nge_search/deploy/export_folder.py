"""The folder of an export: no file appears there before all are complete, and none is lost that no export wrote."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from nge_search.errors import UserError, plain
from nge_search.files import new_folder, sync_folder, write_json
from nge_search.json_reader import Reader, read_json
from nge_search.kinds import CONFIG, GENOTYPE, MARK
from nge_search.networks.timm_models import ARCHITECTURES
from nge_search.networks.weights import MODEL_FILE, WEIGHTS_FILE

README_FILE = "README.md"
#: What exports write, in the order in which it appears; config.json, without which there is no model, is the last.
FILES = (WEIGHTS_FILE, GENOTYPE, README_FILE, "model.onnx", "model.pt2", MODEL_FILE)

#: Says which files exports have written here, by their SHA-256: only those are ever replaced or deleted.
RECORD = ".nge-export"
_FORMAT = "nge-export/1"
_STAGING = ".nge-export.tmp"
_RUN_FILES = (CONFIG, MARK)
_FOREIGN = "was not written by nge export, or was changed since"

Digests = dict[str, list[str]]


@contextlib.contextmanager
def staged(out: Path, overwrite: bool, say: Callable[[str], None]) -> Iterator[Path]:
    """A folder to write `FILES` into, which appear in `out` once all are complete: config.json last.

    With `overwrite`, an earlier export is replaced; other files stay, and `say` is told of models among them.

    Raises:
        UserError: `out` may not be written into, or holds something of the same name that no export wrote.
    """
    if any(os.path.lexists(out / name) for name in _RUN_FILES):
        raise UserError(f"'{out}' is the folder of a run; choose another one")
    if out.is_dir() and not overwrite:
        strangers = sorted(entry.name for entry in out.iterdir() if entry.name not in (_STAGING, RECORD))
        if strangers:
            raise UserError(
                f"folder '{out}' is not empty (for example '{plain(strangers[0])}'); choose another one, or add "
                f"--overwrite, which keeps files that are not of an export"
            )
    staging = out / _STAGING
    with new_folder(out):
        _delete_leftover(staging)
        staging.mkdir()
        try:
            yield staging
            _publish(staging, out, say)
        except OSError as error:
            error.filename, error.filename2 = str(out), None  # the name that the user knows
            raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _delete_leftover(staging: Path) -> None:
    """Delete what an export that was killed has left."""
    if not os.path.lexists(staging):
        return
    if staging.is_symlink() or not staging.is_dir() or {entry.name for entry in staging.iterdir()} - set(FILES):
        raise UserError(f"'{staging}' was not left by an export; remove it, or choose another folder")
    shutil.rmtree(staging)


def _publish(staging: Path, out: Path, say: Callable[[str], None]) -> None:
    """Move the files into place. There is no config.json, and so no model, until all others are there."""
    new = {name: [_digest(staging / name)] for name in FILES if (staging / name).is_file()}
    there = [name for name in FILES if os.path.lexists(out / name)]
    written = _written(out)
    foreign = [name for name in there if not _is_written(out / name, written)]
    for name in foreign:
        if name in new:
            raise UserError(f"'{out / name}' {_FOREIGN}; move it away, or choose another folder")
        say(f"'{out / name}' stays: it {_FOREIGN}")
    for name in new:
        with open(staging / name, "rb+") as file:
            os.fsync(file.fileno())
    old = {name: written[name] for name in there if name not in foreign}
    _write_record(out, {name: [*old.get(name, []), *new.get(name, [])] for name in {**old, **new}})
    if MODEL_FILE in old:
        (out / MODEL_FILE).unlink()
    for name in FILES:
        if name in new:
            os.replace(staging / name, out / name)
        elif name in old:
            (out / name).unlink(missing_ok=True)  # of an export in other formats
    _write_record(out, new)
    sync_folder(out)


def _write_record(out: Path, digests: Digests) -> None:
    write_json(out / RECORD, {"format": _FORMAT, "files": digests})


def _written(out: Path) -> Digests:
    """The digests of the files that exports wrote into `out`, by name."""
    try:
        document = read_json(out / RECORD)
    except UserError:
        return _written_before(out)
    files = document.get("files")
    if document.get("format") != _FORMAT or not isinstance(files, dict):
        return {}
    return {name: known for name in FILES if isinstance(known := files.get(name), list)}


def _written_before(out: Path) -> Digests:
    """As `_written`, of an export by a version that kept no record: timm's files, if they fit each other."""
    try:
        config = Reader(str(out / MODEL_FILE), read_json(out / MODEL_FILE))
        architecture = config.text("architecture", tuple(ARCHITECTURES.values()))
        if read_json(out / GENOTYPE) != config.section("model_args").document.get("genotype"):
            return {}
        with open(out / README_FILE, encoding="utf-8", errors="replace") as file:
            if not file.readline(1000).startswith(f"# {architecture}, trained on "):
                return {}
    except (UserError, FileNotFoundError):
        return {}
    names = (WEIGHTS_FILE, GENOTYPE, README_FILE, MODEL_FILE)
    return {name: [_digest(out / name)] for name in names if (out / name).is_file()}


def _is_written(path: Path, written: Digests) -> bool:
    return path.is_file() and not path.is_symlink() and _digest(path) in written.get(path.name, ())


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
