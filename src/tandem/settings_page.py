"""``docs/settings.md``, from the table in ``config.py``."""

from __future__ import annotations

from tandem.config import SETTINGS


def settings_markdown() -> str:
    """``docs/settings.md``: the table as it stands in the code."""
    lines = [
        "# Settings",
        "",
        "Generated from `src/tandem/settings.py` by `make docs`; a test fails when they differ.",
        "",
        "A value comes from, later ones winning: the default, the file given with `--config` (TOML, one flat table,",
        "keys as in the first column), the environment, the command line. Lists are comma-separated in the",
        "environment, and the flag is repeated on the command line. An unknown key or a wrong value is refused, also",
        "where a later place overrules it. `TANDEM_API_KEYS` that is set and holds no key is refused.",
        "",
        "`Embedder(...)` reads no environment and no file: it takes what it is given.",
        "",
        "What the probes of the inference engines found is kept in the folder `probes` beside the store's folder.",
        "",
        "Kubernetes sets variables like `TANDEM_SERVICE_HOST`, `TANDEM_PORT_80_TCP` and `TANDEM_PORT=tcp://10.0.0.1:80`",
        "in a pod beside a Service named `tandem`. They are ignored; `enableServiceLinks: false` in the pod's spec",
        "leaves them out.",
        "",
        "| key | flag | environment | default | meaning |",
        "|---|---|---|---|---|",
    ]
    for row in SETTINGS:
        flag = f"`{row.flag}`" if row.flag else "none"
        lines.append(f"| `{row.name}` | {flag} | `{row.env}` | `{_shown(row.default)}` | {row.help} |")
    return "\n".join(lines) + "\n"


def _shown(default: object) -> str:
    if isinstance(default, bool):
        return "true" if default else "false"
    if isinstance(default, tuple):
        return "[" + ", ".join(default) + "]"
    return str(default) if default != "" else '""'
