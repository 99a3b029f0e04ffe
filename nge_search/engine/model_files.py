"""A trained model as two files of a folder: one has its tensors (safetensors), the other, JSON, says all else.

The document is written last, and names the checksum of the tensors' file: two files that do not belong together are
refused. Both are read as if a stranger had written them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, float32, float64, int32, int64

from nge_search.engine.environment import package_versions
from nge_search.engine.run_reader import use_of
from nge_search.errors import UserError, plain, shorten
from nge_search.files import read_bytes, user_path, write_atomic, write_json
from nge_search.json_reader import Reader, read_json
from nge_search.tensor_reader import check_safetensors

#: Bytes of the files; the largest model of ours, an ensemble on thousands of labels, has some ten million.
_LARGEST_TENSORS, _LARGEST_DOCUMENT = 1 << 28, 1 << 26
_TYPES = (float64, float32, int64, int32)

_Opened = TypeVar("_Opened")


@dataclass(frozen=True)
class ModelFiles:
    """How models of one sort are kept.

    Attributes:
        what: the sort, for people: "predictor".
        family: of the format, whose version is behind it: "nge-predictor".
        version: that is written, and read.
        document, tensors: names of the files.
        advice: what to give where something else was given.
    """

    what: str
    family: str
    version: int
    document: str
    tensors: str
    advice: str

    @property
    def format(self) -> str:
        return f"{self.family}/{self.version}"

    def save(self, folder: Path, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> list[Path]:
        """Write both files, in place of earlier ones, the document last; returns their paths."""
        content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
        digest = hashlib.sha256(content).hexdigest()
        paths = [folder / self.tensors, folder / self.document]
        write_atomic(paths[0], content)
        versions = package_versions()
        write_json(paths[1], {"format": self.format, **document, "versions": versions, "tensors": digest})
        return paths

    def read(self, reference: str | Path) -> Reader:
        """The document in a folder, or at its own path or that of the tensors; its `source` is its path.

        Raises:
            UserError: none, one of another version, or a damaged file.
        """
        path = self._document_path(user_path(reference))
        found = Reader(str(path), read_json(path, _LARGEST_DOCUMENT))
        given = found.document.get("format")
        if given != self.format:
            if isinstance(given, str) and given.startswith(f"{self.family}/"):
                raise UserError(
                    f"{path} is of another version ({plain(given)}, and this one reads {self.format}); "
                    "train it anew"
                )
            raise UserError(f"{path} is no {self.what}: its format is {shorten(given)}, not {self.format}")
        return found

    def read_tensors(self, found: Reader) -> dict[str, Tensor]:
        """The tensors that belong to a document; those of floating point are finite.

        Raises:
            UserError: no such file, a damaged one, or one of another model.
        """
        path = Path(found.source).with_name(self.tensors)
        check_safetensors(path)
        content = read_bytes(path, _LARGEST_TENSORS)
        if hashlib.sha256(content).hexdigest() != found.text("tensors"):
            raise UserError(f"'{path}' does not belong to the {self.document} beside it, or is damaged")
        try:
            tensors = load(content)
        except (SafetensorError, ValueError, KeyError) as error:
            raise UserError(f"'{path}' is not a safetensors file, or is damaged ({error})") from None
        for name, tensor in tensors.items():
            if tensor.dtype not in _TYPES:
                raise UserError(f"'{path}' is damaged: {shorten(name)} is of the type {tensor.dtype}")
            if not tensor.isfinite().all():
                raise UserError(f"'{path}' is damaged: {shorten(name)} holds values that are not finite")
        return tensors

    def open(self, found: Reader, opened: Callable[[], _Opened]) -> _Opened:
        """What `opened` makes of a document; UserError, naming the file, where it stumbles over what is in it."""
        try:
            return opened()
        except UserError as error:
            raise UserError(
                str(error) if found.source in str(error) else f"{found.source} is damaged: {error}"
            ) from None
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
            raise UserError(
                f"{found.source} is damaged: its state is none of this {self.what} ({shorten(error)})"
            ) from None

    def _document_path(self, path: Path) -> Path:
        if path.is_dir():
            if not (path / self.document).exists():
                use = use_of(path)
                is_what = f"is {use}" if use else f"holds no {self.document}"
                raise UserError(f"'{path}' {is_what}; give {self.advice}")
            return path / self.document
        if not path.exists():
            raise UserError(f"{self.what} '{path}' does not exist; give {self.advice}")
        return path.with_name(self.document) if path.name == self.tensors else path
