"""KV memory with and without a prefix cache."""

import pytest

from halffull.sim.kv_cache import KvCache


def test_without_prefix_cache_it_only_counts():
    cache = KvCache(100, 10, prefix_cache=False)
    assert cache.reserve(60, (1, 2, 3)) == (0, 60)
    assert cache.reserve(41, ()) is None
    cache.grow(40)
    assert cache.free == 0
    assert cache.publish((1, 2, 3), 0) == 0
    cache.release(100, ())
    assert (cache.used, cache.queries, cache.hits) == (0, 0, 0)


def filled(capacity=100):
    """A cache that holds blocks 1, 2, 3, which nobody refers to."""
    cache = KvCache(capacity, 10, prefix_cache=True)
    assert cache.reserve(30, (1, 2, 3)) == (0, 30)
    assert cache.publish((1, 2, 3), 0) == 3
    cache.release(0, (1, 2, 3))
    assert (cache.used, cache.cached) == (0, 30)
    return cache


def test_a_hit_shares_blocks_and_counts_them_once():
    cache = filled()
    assert cache.reserve(35, (1, 2, 3)) == (30, 5)
    assert cache.reserve(38, (1, 2, 3)) == (30, 8)
    assert (cache.used, cache.cached) == (30 + 5 + 8, 0)
    assert (cache.queries, cache.hits) == (30 + 35 + 38, 60)
    cache.release(5, (1, 2, 3))
    assert cache.used == 38
    cache.release(8, (1, 2, 3))
    assert (cache.used, cache.cached) == (0, 30)


def test_the_last_token_of_a_prompt_is_always_computed():
    assert filled().reserve(30, (1, 2, 3)) == (20, 10)


def test_a_hit_ends_at_the_first_unknown_block():
    assert filled().reserve(40, (1, 9, 3)) == (10, 30)


def test_memory_is_taken_from_the_least_recently_used_blocks_ends_of_prompts_first():
    cache = filled()
    assert cache.reserve(85, ()) == (0, 85)
    assert cache.cached == 10
    cache.release(85, ())
    assert cache.reserve(25, (1, 2)) == (10, 15)


def test_a_prompt_that_fits_only_by_counting_its_hits_twice_is_refused():
    cache = filled()
    assert cache.reserve(70, ()) is not None
    assert cache.reserve(41, (1, 2, 3)) is None
    assert cache.reserve(30, (1, 2, 3)) == (20, 10)


def test_a_block_published_by_another_meanwhile_stays_private():
    cache = KvCache(100, 10, prefix_cache=True)
    assert cache.reserve(25, (1, 2)) == cache.reserve(25, (1, 2)) == (0, 25)
    assert cache.publish((1, 2), 0) == 2
    assert cache.publish((1, 2), 0) == 0
    cache.release(25, ())
    cache.release(5, (1, 2))
    assert (cache.used, cache.cached) == (0, 20)


@pytest.mark.parametrize("capacity", [30, 31])
def test_growth_evicts(capacity):
    cache = filled(capacity)
    assert cache.reserve(1, ()) == (0, 1)
    cache.grow(10)
    assert cache.used + cache.cached <= capacity
