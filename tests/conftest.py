"""What every test may ask for: a real model's folder, the data beside the repository, one async backend."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tandem.models.folder import ModelFolder

REPOSITORY = Path(__file__).resolve().parent.parent
DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"

# Before any test imports it: ONNX Runtime would report home (see tandem/backends/quiet_onnxruntime.py).
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# No deadline: a test never judges speed. Under CI the examples are the same in every run.
settings.register_profile("tandem", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("tandem")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Tandem runs on asyncio, so async tests do."""
    return "asyncio"


@pytest.fixture(scope="session")
def minilm_folder() -> ModelFolder:
    """The default model: the folder TANDEM_TEST_MODEL names, else wherever Tandem itself would find it."""
    from tandem.errors import DownloadFailed, ModelNotFound
    from tandem.models.folder import ModelFolder
    from tandem.models.resolve import SourceOptions, find_model

    named = os.environ.get("TANDEM_TEST_MODEL")
    if named:
        return ModelFolder(path=Path(named), name=DEFAULT_MODEL, source="folder")
    try:
        return find_model(DEFAULT_MODEL, SourceOptions())
    # Only these: a model that is there and broken is a failure, not a reason to skip.
    except (ModelNotFound, DownloadFailed) as error:
        pytest.skip(f"the default model can not be had here; name a folder in TANDEM_TEST_MODEL: {error}")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real texts for quality and load: the folder TANDEM_DATA names, else shared/data beside the repository."""
    named = os.environ.get("TANDEM_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no data at {folder}; name a folder in TANDEM_DATA")
    return folder
