"""Packages the configs: those at the top of the checkout are the one copy; a wheel takes them along.

Everything else is in setup.cfg.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

CONFIGS = Path(__file__).resolve().parent / "configs"


class BuildWithConfigs(build_py):
    """What `build_py` does, and `configs/` as `nge_search/configs/`."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:  # an editable installation reads the checkout's
            shutil.copytree(CONFIGS, Path(self.build_lib) / "nge_search" / "configs", dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithConfigs})
