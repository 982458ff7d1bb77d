"""STS-B dev: does Tandem rank sentence pairs as sentence-transformers does, in each tier?"""

from __future__ import annotations

from tandem.bench.context import Context
from tandem.bench.peers import LIBRARY_PEERS, PeerProcess, available
from tandem.bench.report import at_most, missing, shown
from tandem.bench.stats import Vectors, cosines, spearman
from tandem.bench.texts import SentencePairs, sts_dev
from tandem.embedder import Embedder
from tandem.types import Tier

PEER = LIBRARY_PEERS[0]
NAME = "STS-B dev Spearman"


def quality(context: Context) -> None:
    """Both tiers, and sentence-transformers in fp32 where it is set up."""
    report, options = context.report, context.options
    pairs = sts_dev(options.data)
    if pairs is None:
        report.figures.append(missing(NAME, "equal to 0.0005", "the data are not here"))
        return
    texts = pairs.left + pairs.right
    scores = {}
    for tier in Tier:
        with Embedder(options.model, precision=tier, settings=context.settings) as embedder:
            scores[embedder.model.tier] = _score(embedder.embed(texts), pairs)
    theirs = None
    if PEER.environment in options.peers and available(options.peers_folder, PEER.environment):
        with PeerProcess(PEER, options.peers_folder, context.model.folder.path, options.threads) as process:
            theirs = _score(process.rows(texts, context.folder), pairs)
        report.figures.append(shown(f"{NAME}, sentence-transformers fp32", theirs, "", 5))
    for tier, score in scores.items():
        report.figures.append(shown(f"{NAME}, {tier}", score, "", 5))
        name = f"{NAME}, {tier}: difference from sentence-transformers"
        if theirs is None:
            report.figures.append(missing(name, "<= 0.0005", "sentence-transformers is not set up"))
        else:
            report.figures.append(at_most(name, 0.0005, abs(score - theirs), "", 6))
    absent = [tier for tier in Tier if tier not in scores]
    report.figures += [missing(f"{NAME}, {tier}", "<= 0.0005", "this CPU has no such tier") for tier in absent]


def _score(rows: Vectors, pairs: SentencePairs) -> float:
    n = len(pairs.gold)
    return spearman(cosines(rows[:n], rows[n:]), pairs.gold)
