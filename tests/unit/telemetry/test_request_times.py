"""What every request writes looks to a scraper as if the client library had counted it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from tandem.telemetry import instruments
from tandem.telemetry.request_times import RequestCounts, TimesByLabels

EDGES = instruments.REQUEST_EDGES_S
REQUESTS, DURATIONS = instruments.REQUESTS, instruments.REQUEST_DURATION


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["openai", "tei"]),
            st.sampled_from(["/v1/embeddings", "/embed"]),
            st.sampled_from([200, 429]),
            st.one_of(st.sampled_from([*EDGES, 0.0]), st.floats(0, 100)),
        ),
        min_size=1,
        max_size=40,
    )
)
def test_the_exposition_is_the_librarys(seen: list[tuple[str, str, int, float]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    durations = TimesByLabels(DURATIONS)
    requests = RequestCounts(REQUESTS, durations)
    ours.register(requests)
    ours.register(durations)
    counter = Counter(REQUESTS.name, REQUESTS.help, REQUESTS.labels, registry=theirs)
    histogram = Histogram(DURATIONS.name, DURATIONS.help, DURATIONS.labels, registry=theirs, buckets=EDGES)
    for api, route, status, seconds in seen:
        requests.count(api, route, status, seconds)
        counter.labels(api, route, str(status)).inc()
        histogram.labels(api, route).observe(seconds)
    assert lines(ours) == lines(theirs)


def lines(registry: CollectorRegistry) -> list[str]:
    text = generate_latest(registry).decode()
    return [line for line in text.splitlines() if "_created" not in line]
