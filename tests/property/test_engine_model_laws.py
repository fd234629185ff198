"""Laws of the engine model under any load: tokens and memory are conserved, order is kept, runs of steps change nothing."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halffull.sim.engine_model import EngineModel, EngineSequence, Phase
from halffull.sim.profiles import PROFILES

KV = 300
PROFILE = replace(PROFILES["a100"], kv_tokens=KV, max_batched_tokens=40, max_sequences=8)

lengths = st.tuples(st.integers(1, 150), st.integers(1, 150))
arrivals = st.lists(st.tuples(lengths, st.integers(0, 6)), min_size=1, max_size=25)
cancels = st.sets(st.integers(0, 24), max_size=5)


def drive(requests, cancelled=frozenset(), *, prefix_cache=False, most_steps=1):
    """Submit each request after as many more steps as it says; yield (model, sequences, outcome) after each run."""
    engine = EngineModel(PROFILE, block_size=10, prefix_cache=prefix_cache)
    sequences = []
    for number, ((prompt, output), gap) in enumerate(requests):
        for _ in range(gap):
            if engine.start(most_steps) is None:
                break
            yield engine, sequences, engine.finish()
        hashes = tuple(("shared", block) for block in range(prompt // 10)) if prefix_cache else ()
        sequences.append(EngineSequence(prompt, output, hashes))
        engine.submit(sequences[-1])
        if number in cancelled:
            engine.start()
            engine.cancel(sequences[number // 2])
            if engine.busy:
                yield engine, sequences, engine.finish()
    while engine.start(most_steps) is not None:
        yield engine, sequences, engine.finish()


@settings(max_examples=150, deadline=None)
@given(arrivals, cancels, st.booleans())
def test_memory_and_tokens_are_conserved(requests, cancelled, prefix_cache):
    prompts = decoded = first = 0
    engine = sequences = None
    for engine, sequences, outcome in drive(requests, cancelled, prefix_cache=prefix_cache):
        prompts += outcome.prefill_tokens
        decoded += outcome.decoded_tokens
        first += len(outcome.prefilled)
        assert 0 <= engine.kv.used <= KV
        assert engine.kv.used + engine.kv.cached <= KV
        assert len(engine.running) <= min(8, len(sequences))
        if not prefix_cache:
            held = sum(one.prompt_tokens + max(0, engine.generated(one) - 1) for one in engine.running)
            recomputed = sum(1 for one in engine.running if one.phase is Phase.PREFILL and one.generated)
            assert engine.kv.used == held + recomputed
    assert engine.kv.used == 0
    assert not engine.waiting
    assert not engine.running
    assert all(one.phase is Phase.DONE for one in sequences)
    assert decoded + first == sum(one.generated for one in sequences)
    if not cancelled:
        assert all(one.generated == one.output_tokens for one in sequences)
        recomputed = sum(one.preemptions for one in sequences)
        if not prefix_cache and not recomputed:
            assert prompts == sum(one.prompt_tokens for one in sequences)


@settings(max_examples=100, deadline=None)
@given(arrivals)
def test_first_tokens_come_in_order_of_arrival(requests):
    submitted, firsts = [], []
    for _, sequences, outcome in drive(requests):
        submitted = sequences
        firsts += [one for one in outcome.prefilled if one not in firsts]
    assert firsts == submitted


@settings(max_examples=100, deadline=None)
@given(st.lists(lengths, min_size=1, max_size=20))
def test_runs_of_steps_do_what_single_steps_do(requests):
    def history(most_steps):
        now, ends = 0.0, []
        engine = EngineModel(PROFILE)
        for prompt, output in requests:
            engine.submit(EngineSequence(prompt, output, owner=len(ends)))
        steps = 0
        while (duration := engine.start(most_steps)) is not None:
            now += duration
            outcome = engine.finish()
            steps += outcome.steps
            ends += [(steps, one.prompt_tokens, one.output_tokens, one.preemptions) for one in outcome.finished]
        return ends, now

    (ends, duration), (ends_of_runs, duration_of_runs) = history(1), history(10**6)
    assert ends_of_runs == ends
    assert duration_of_runs == pytest.approx(duration)  # the same sum in another order
