"""The files of the WordLlama wheel pass through here, found but never imported, and go on as a table and a tokenizer.

The package configures the root logger when it is imported and looks for its tokenizer in a folder that does
not exist (docs/decisions/0004-local-model.md), so only its two data files are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from schemas.errors import Misconfigured

DISTRIBUTION = "wordllama"
TABLE_FILE = "l2_supercat_256.safetensors"
TOKENIZER_FILE = "l2_supercat_tokenizer_config.json"
TABLE_NAME = "embedding.weight"

Table = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """Where the two data files lie on this machine."""

    table: Path
    tokenizer: Path


def find_weights() -> WeightFiles:
    """Find the data files of the installed wheel without importing it.

    Raises:
        Misconfigured: the wheel is not installed or does not hold the files.
    """
    try:
        listed = metadata.files(DISTRIBUTION) or []
    except metadata.PackageNotFoundError as error:
        raise Misconfigured(
            "The local model needs the weights of the wordllama wheel.",
            field=DISTRIBUTION,
            fix="install penstock with its 'local' extra",
        ) from error
    found = {file.name: Path(str(file.locate())) for file in listed}
    missing = [
        name for name in (TABLE_FILE, TOKENIZER_FILE) if name not in found or not found[name].is_file()
    ]
    if missing:
        raise Misconfigured(
            f"The installed {DISTRIBUTION} wheel lacks {', '.join(missing)}.",
            field=DISTRIBUTION,
            fix="install the version that requirements.lock names",
        )
    return WeightFiles(table=found[TABLE_FILE], tokenizer=found[TOKENIZER_FILE])


def load_table(path: Path) -> Table:
    """Read the token table: float32[vocabulary, 256]."""
    return load_file(path)[TABLE_NAME].astype(np.float32)
