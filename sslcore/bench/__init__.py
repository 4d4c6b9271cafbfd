"""Many networks by every probe: readings kept in a cache, one row a network, how alike networks are."""

from sslcore.bench.board import Leaderboard, run_bench
from sslcore.bench.cache import cached_readings, readings_key
from sslcore.bench.columns import COLUMNS, Column
from sslcore.bench.networks import Network, find_networks, named_report
from sslcore.bench.relations import Relation, ranks, relate, spearman

__all__ = [
    "COLUMNS",
    "Column",
    "Leaderboard",
    "Network",
    "Relation",
    "cached_readings",
    "find_networks",
    "named_report",
    "ranks",
    "readings_key",
    "relate",
    "run_bench",
    "spearman",
]
