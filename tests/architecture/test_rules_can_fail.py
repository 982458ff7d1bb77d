"""Every rule of this folder finds the breach it is for, in a small tree written for it, and passes the near miss."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.architecture import budgets, floors, habits, writing
from tests.architecture.source import SourceTree
from tests.architecture.test_rules import RULES, TEST_RULES, Rule

Files = dict[str, str]


def lines(count: int) -> str:
    return "x = 1\n" * count


def function(count: int, name: str = "f") -> str:
    return f"def {name}():\n" + "    x = 1\n" * (count - 1)


def methods(count: int) -> str:
    return "class A:\n" + "".join(f"    def m{i}(self): ...\n" for i in range(count))


def constructor(parameters: str) -> str:
    return f"class A:\n    def __init__(self, {parameters}): ...\n"


BREACHES: tuple[tuple[Rule, Files, str], ...] = (
    # Upwards: plainly, inside a function, for types alone, relatively, by a registered name, through the root.
    (floors.floors, {"types.py": "import tandem.models.a\n", "models/a.py": ""}, "upwards"),
    (floors.floors, {"models/a.py": "def f():\n    from tandem.engine import Engine\n", "engine.py": ""}, "upwards"),
    (floors.floors, {"models/a.py": "if TYPE_CHECKING:\n    from tandem import engine\n", "engine.py": ""}, "upwards"),
    (floors.floors, {"models/a.py": "from ..engine import Engine\n", "engine.py": ""}, "upwards"),
    (
        floors.floors,
        {"backends/__init__.py": "R.register('x', 'tandem.server.app:App')\n", "server/app.py": ""},
        "upwards",
    ),
    (floors.floors, {"models/a.py": "import_module('tandem.cli.main')\n", "cli/main.py": ""}, "upwards"),
    (floors.floors, {"models/a.py": "from tandem import Embedder\n", "__init__.py": ""}, "the root"),
    (floors.floors, {"__init__.py": "from tandem.server.app import App\n", "server/app.py": ""}, "upwards"),
    (floors.floors, {"models/a.py": "import tandem.batching.b\n", "batching/b.py": ""}, "neighbour"),
    (floors.floors, {"odds/a.py": ""}, "on no floor"),
    (floors.one_level, {"models/deep/a.py": ""}, "2 folders deep"),
    (floors.cycles, {"models/a.py": "import tandem.models.b\n", "models/b.py": "import tandem.models.a\n"}, "a -> "),
    (
        floors.cycles,
        {"models/a.py": "from tandem.models import b\n", "models/b.py": "def f():\n    import tandem.models.a\n"},
        "tandem.models.a -> tandem.models.b -> tandem.models.a",
    ),
    (floors.registrations, {"backends/__init__.py": "'tandem.backends.gone:B'\n"}, "does not exist"),
    (floors.registrations, {"backends/__init__.py": "'tandem.backends.b:B'\n", "backends/b.py": "C = 1\n"}, "b:B"),
    (floors.dynamic_imports, {"models/a.py": "importlib.import_module(name)\n"}, "computed name"),
    (budgets.file_lines, {"types.py": lines(301)}, "over 300"),
    (budgets.file_lines, {"types.py": lines(451)}, "over 450"),
    (budgets.file_lines_ever, {"types.py": lines(451)}, "over 450"),
    (budgets.function_lines, {"types.py": function(81)}, "over 80"),
    (budgets.function_lines, {"types.py": function(41) + function(2, "g") * 18}, "1 of 19"),
    (budgets.class_size, {"types.py": "class A:\n" + "    x = 1\n" * 250}, "251 lines"),
    (budgets.class_size, {"types.py": methods(16)}, "16 methods"),
    (budgets.constructor_parameters, {"types.py": constructor("a, b, c, *, d, e, f, g")}, "7 parameters"),
    (budgets.exports, {"__init__.py": "".join(f"n{i} = {i}\n" for i in range(13))}, "13 names"),
    (budgets.exports, {"__init__.py": f"__all__ = {[f'n{i}' for i in range(13)]}\n"}, "13 names"),
    (habits.protocols_not_abc, {"types.py": "from abc import ABC\n"}, "imports abc"),
    (habits.silent_except, {"types.py": "try:\n    f()\nexcept KeyError:\n    pass\n"}, "swallows"),
    (habits.silent_except, {"types.py": "try:\n    f()\nexcept KeyError:\n    ...\n"}, "swallows"),
    (habits.broad_except, {"types.py": "try:\n    f()\nexcept Exception:\n    log()\n"}, "catches everything"),
    (habits.broad_except, {"types.py": "try:\n    f()\nexcept:\n    log()\n"}, "catches everything"),
    (habits.broad_except, {"types.py": "try:\n    f()\nexcept (OSError, BaseException):\n    log()\n"}, "everything"),
    (habits.broad_except, {"types.py": "with contextlib.suppress(Exception):\n    f()\n"}, "catches everything"),
    (habits.keyword_catch_alls, {"types.py": "def f(**options): ...\n"}, "**options"),
    (habits.keyword_catch_alls, {"types.py": "f = lambda **k: 0\n"}, "**k"),
    (
        habits.inheritance,
        {"types.py": "class A: ...\nclass B(A): ...\n", "clock.py": "class C(types.B): ...\nclass D(C[int]): ...\n"},
        "D inherits 3 deep",
    ),
    (habits.one_clock, {"models/a.py": "import time\n"}, "imports time"),
    (habits.one_clock, {"models/a.py": "from time import perf_counter\n"}, "imports time"),
    (habits.one_clock, {"models/a.py": "datetime.datetime.now(UTC)\n"}, "calendar"),
    (habits.seeded_chance, {"models/a.py": "import random\n"}, "imports random"),
    (habits.seeded_chance, {"models/a.py": "from random import shuffle\n"}, "imports random"),
    (habits.seeded_chance, {"models/a.py": "Random()\n"}, "no seed"),
    (habits.seeded_chance, {"models/a.py": "np.random.default_rng()\n"}, "no seed"),
    (habits.seeded_chance, {"models/a.py": "np.random.normal(3)\n"}, "global generator"),
    (habits.no_torch, {"models/a.py": "def f():\n    import torch.nn\n"}, "imports torch.nn"),
    (habits.no_torch, {"backends/openvino.py": "from transformers import AutoModel\n"}, "imports transformers"),
    (habits.no_telemetry, {"backends/openvino.py": "import openvino as ov\n"}, "imports openvino"),
    (habits.no_telemetry, {"cli/doctor.py": "from onnxruntime import get_device\n"}, "imports onnxruntime"),
    (writing.no_mocks, {"test_a.py": "from unittest import mock\n"}, "imports a mock"),
    (writing.no_mocks, {"test_a.py": "from unittest.mock import Mock\n"}, "imports a mock"),
    (writing.no_sleeps, {"test_a.py": "time.sleep(1)\n"}, "sleeps"),
    (writing.no_sleeps, {"test_a.py": "async def f():\n    await asyncio.sleep(seconds)\n"}, "sleeps"),
    (writing.no_sleeps, {"test_a.py": "from time import sleep\n"}, "imports sleep"),
)

NEAR_MISSES: tuple[tuple[Rule, Files], ...] = (
    (floors.floors, {"models/a.py": "import tandem.types\nfrom tandem import __version__\n", "types.py": ""}),
    (floors.floors, {"engine.py": "import tandem.build\n", "build.py": "", "models/a.py": "import tandem.models.b\n"}),
    (floors.floors, {"models/a.py": "getLogger('tandem')\nNAME = 'tandem.requests'\n"}),
    (floors.one_level, {"server/static/docs.html": "", "server/app.py": ""}),
    (floors.cycles, {"models/__init__.py": "'tandem.models.a:A'\n", "models/a.py": "from tandem.models import R\n"}),
    (floors.registrations, {"models/a.py": "'tandem.models.b:B'\n", "models/b.py": "if fast:\n    B = 1\n"}),
    (floors.dynamic_imports, {"registry.py": "import_module(name)\n", "models/a.py": "import_module('numpy')\n"}),
    (budgets.file_lines, {"types.py": lines(300)}),
    (budgets.function_lines, {"types.py": function(80) + function(40, "g") * 19}),
    (budgets.class_size, {"types.py": methods(15)}),
    (budgets.constructor_parameters, {"types.py": constructor("a, b, c, *, d, e, f")}),
    (budgets.exports, {"__init__.py": "".join(f"n{i} = _{i} = {i}\n" for i in range(12))}),
    (habits.protocols_not_abc, {"types.py": "from collections.abc import Sequence\n"}),
    (habits.silent_except, {"types.py": "try:\n    f()\nexcept KeyError:\n    x = None\n"}),
    (habits.broad_except, {"types.py": "try:\n    f()\nexcept BaseException:\n    clean()\n    raise\n"}),
    (habits.inheritance, {"errors.py": "class A(Exception): ...\nclass B(A): ...\nclass C(B): ...\n"}),
    (habits.one_clock, {"clock.py": "import time\n", "bench/load.py": "import time\n", "a.py": "clock.now()\n"}),
    (habits.seeded_chance, {"models/a.py": "from random import Random\nRandom(7)\nnp.random.default_rng(seed)\n"}),
    (habits.no_torch, {"backends/torch_packed.py": "import torch\n"}),
    (habits.no_telemetry, {"backends/quiet_openvino.py": "import openvino as ov\n"}),
    (writing.no_sleeps, {"test_a.py": "await asyncio.sleep(0)\n"}),
)


def written(files: Files, folder: Path) -> SourceTree:
    root = folder / "tandem"
    root.mkdir()
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return SourceTree.read(root)


@pytest.mark.parametrize(("rule", "files", "expected"), BREACHES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_breach_is_found(rule: Rule, files: Files, expected: str, tmp_path: Path) -> None:
    found = list(rule(written(files, tmp_path)))
    assert any(expected in breach for breach in found), found


@pytest.mark.parametrize(("rule", "files"), NEAR_MISSES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_near_miss_passes(rule: Rule, files: Files, tmp_path: Path) -> None:
    assert list(rule(written(files, tmp_path))) == []


@pytest.mark.parametrize("rule", RULES + TEST_RULES, ids=lambda rule: rule.__name__)
def test_every_rule_is_proven(rule: Rule) -> None:
    assert any(rule is proven for proven, _, _ in BREACHES)
