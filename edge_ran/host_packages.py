"""The error where the packages of ``edge-ran[host]`` are missing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from edge_ran.errors import EnvironmentMissing
from edge_ran.python_command import pip


@contextlib.contextmanager
def host_packages(what: str) -> Iterator[None]:
    """Turn a missing TensorFlow, which ``what`` needs, into one line.

    Raises:
        EnvironmentMissing: it, or a package beside it, is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("tensorflow", "tf_keras", "tensorflow_model_optimization"):
            raise
        raise EnvironmentMissing(f"{what} needs {error.name}", pip("install 'edge-ran[host]'")) from error
