"""Networks traced in a process of their own, one after the other, within limits on time and memory.

The process is `python -m nge_search.retrieve.worker LIBRARY MEGABYTES`. It answers a line when it is ready, and
then a line of JSON for each name that comes, on a line, over standard input.
"""

from __future__ import annotations

import base64
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

from nge_search.engine.line_process import LineProcess
from nge_search.errors import UserError

#: Of an archive of one graph, as `corpus_build` keeps it.
GRAPH_FORMAT = "nge-graph/1"

_START_SECONDS, _PATIENCE_SECONDS = 600.0, 5.0


class Worker:
    """A process that traces networks of a library. It starts when first asked, and anew after one that failed.

    Args:
        library: as `open_library` takes it.
        seconds: that one network may take.
        megabytes: of memory that one network may take, besides what the libraries take.
    """

    def __init__(self, library: str, seconds: float, megabytes: int):
        self._library, self._seconds, self._megabytes = library, seconds, megabytes
        self._process: LineProcess | None = None

    def trace(self, name: str) -> dict[str, Any]:
        """What `answer` gives for a network; its "reason" where it has no graph, or none within the limits.

        Raises:
            UserError: the library cannot be imported.
        """
        try:
            if self._process is None:
                self._process = LineProcess(__name__, [self._library, str(self._megabytes)])
                said = self._process.answer(_START_SECONDS)
                if "error" in said:
                    raise UserError(f"networks of {self._library} cannot be traced: {said['error']}")
            self._process.ask(name)
            return self._process.answer(self._seconds)
        except TimeoutError:
            self.close()
            return {"reason": f"it took longer than {self._seconds:g} seconds"}
        except EOFError:
            code = self.close(_PATIENCE_SECONDS)
            return {"reason": f"its process ended with exit code {code}, perhaps for want of memory"}

    def close(self, patience: float = 0.0) -> int | None:
        """End the process, after so many seconds if it does not end by itself; returns its exit code."""
        process, self._process = self._process, None
        return None if process is None else process.close(patience)


def answer(library: Any, name: str) -> dict[str, Any]:
    """What is known of a network: "parameters", "multiply_adds", "digest", "graph" in base 64; or a "reason"."""
    from nge_search.retrieve.extraction import trace
    from nge_search.retrieve.graph_archive import GraphArchive, archive_bytes

    try:
        module, inputs = library.build(name)
        traced = trace(module, inputs)
        packed = archive_bytes(GRAPH_FORMAT, GraphArchive.of([traced.graph]), {})
        return {
            "parameters": traced.parameters,
            "multiply_adds": traced.multiply_adds,
            "digest": traced.graph.digest,
            "graph": base64.b64encode(packed).decode(),
        }
    except MemoryError:
        return {"reason": "it takes more memory than is allowed"}
    except UserError as error:
        return {"reason": str(error)}
    except Exception as error:  # a constructor of any origin raises anything
        lines = str(error).splitlines()
        return {"reason": f"it cannot be built: {type(error).__name__}: {lines[0] if lines else ''}"[:300]}


def limit_memory(megabytes: int) -> None:
    """Let this process take so much more memory than it has now (on Linux)."""
    status = Path("/proc/self/status")
    if status.exists():
        taken = next(
            int(line.split()[1]) << 10 for line in status.read_text().splitlines() if line.startswith("VmData")
        )
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = taken + (megabytes << 20)
        resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard < 0 else min(wanted, hard), hard))


def main() -> None:
    """Answer until there is nothing more to answer."""
    import torch

    from nge_search.retrieve.sources import open_library

    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    torch.set_num_threads(1)
    try:
        library = open_library(sys.argv[1])
        first = {"version": library.version()}
    except Exception as error:  # importing a library of any origin raises anything
        print(json.dumps({"error": str(error)}), file=answers, flush=True)
        return
    limit_memory(int(sys.argv[2]))
    print(json.dumps(first), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(library, line.strip())), file=answers, flush=True)


if __name__ == "__main__":
    main()
