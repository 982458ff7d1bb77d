"""wrk, where it is installed: a load generator in C, so that single questions are not limited by ours."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import msgspec

from tandem.bench.load import Latency, LoadJob, LoadResult, run_load
from tandem.bench.load import check as check_job
from tandem.errors import JobError

# Bodies are encoded before the clock starts. wrk's own latencies are in microseconds and cover every request.
SCRIPT = """
local requests, n, i = {}, 0, 0
function init(args)
  for line in io.lines(args[1]) do
    n = n + 1
    requests[n] = wrk.format("POST", nil, {["Content-Type"] = "application/json", ["Host"] = wrk.headers["Host"]}, line)
  end
end
function request()
  i = i % n + 1
  return requests[i]
end
function done(summary, latency, _)
  local e = summary.errors
  io.write(string.format(
    '\\nRESULT {"requests":%d,"us":%d,"status":%d,"socket":%d,' ..
    '"mean":%.1f,"max":%.1f,"quantiles":[%.1f,%.1f,%.1f,%.1f]}\\n',
    summary.requests, summary.duration, e.status, e.connect + e.read + e.write + e.timeout, latency.mean, latency.max,
    latency:percentile(50), latency:percentile(90), latency:percentile(95), latency:percentile(99)))
end
"""


class _Result(msgspec.Struct):
    requests: int
    us: int
    status: int
    socket: int
    mean: float
    max: float
    quantiles: tuple[float, float, float, float]


def installed() -> bool:
    """Whether wrk can be run here."""
    return shutil.which("wrk") is not None


def closed_loop(job: LoadJob, folder: Path) -> LoadResult:
    """Run a closed loop by time, with wrk if it is installed, else with Tandem's own generator.

    Raises ConfigError for a refused job, JobError when wrk fails.
    """
    if not installed():
        return run_load(job)
    check_job(job)
    script = folder / "post.lua"
    script.write_text(SCRIPT, encoding="utf-8")
    url = f"http://{job.host}:{job.port}{job.path}"
    command = ["wrk", "-t1", f"-c{job.connections}", f"-d{max(1, round(job.seconds))}s", "--timeout", "30s"]
    command += ["-s", str(script), url, "--", job.bodies]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=job.seconds + 60)
    line = next((line for line in done.stdout.splitlines() if line.startswith("RESULT ")), None)
    if done.returncode or line is None:
        raise JobError(f"wrk failed: {(done.stderr or done.stdout).strip()[-200:]}")
    return _result(msgspec.json.decode(line.removeprefix("RESULT "), type=_Result))


def _result(found: _Result) -> LoadResult:
    p50, p90, p95, p99 = (quantile / 1e6 for quantile in found.quantiles)
    errors = {name: count for name, count in (("status", found.status), ("socket", found.socket)) if count}
    return LoadResult(
        ok=found.requests - found.status,
        errors=errors,
        first_error="",
        seconds=found.us / 1e6,
        latency=Latency(found.mean / 1e6, p50, p90, p95, p99, found.max / 1e6),
        late_p99_s=0.0,
        client_cpu_s=0.0,
    )
