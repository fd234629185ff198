"""Rules of the engine model, one by one, on a profile whose steps are easy to reckon."""

from dataclasses import replace

import pytest

from halffull.sim.engine_model import EngineModel, EngineSequence, Phase
from halffull.sim.profiles import PROFILES, Profile

PLAIN = Profile(1.0, 0.01, 0.0, 0.001, 0.0, kv_tokens=1000, max_batched_tokens=100, max_sequences=4)


def model(**changes):
    return EngineModel(replace(PLAIN, **changes))


def sequence(prompt, output=1, hashes=()):
    return EngineSequence(prompt, output, hashes)


def run(engine, most_steps=1):
    """Run to the end; return (end time, outcome) of every run of steps."""
    now, history = 0.0, []
    while (duration := engine.start(most_steps)) is not None:
        now += duration
        history.append((now, engine.finish()))
    return history


def test_one_sequence_takes_one_step_per_prompt_chunk_and_per_token():
    engine = model()
    one = sequence(250, 3)
    engine.submit(one)
    durations = [engine.start()]
    assert engine.busy
    assert engine.finish().prefilled == []
    durations += [engine.start()]
    assert engine.finish().prefilled == []
    durations += [engine.start()]
    assert engine.finish().prefilled == [one]
    assert engine.generated(one) == 1
    durations += [engine.start()]
    assert engine.finish().finished == []
    durations += [engine.start()]
    assert engine.finish().finished == [one]
    assert engine.start() is None
    assert durations == pytest.approx([2.0, 2.0, 1.5, 1.001, 1.001])
    assert one.generated == 3
    assert one.phase is Phase.DONE
    assert engine.kv.used == 0


def test_the_attention_term_counts_query_key_pairs_of_each_chunk():
    engine = model(per_prefill_token=0.0, per_attention=1.0, base=0.0)
    engine.submit(sequence(150))
    assert engine.start() == pytest.approx(100 * 50)
    engine.finish()
    assert engine.start() == pytest.approx(50 * (100 + 25))


def test_the_kv_term_counts_tokens_of_decodes_including_the_new_one():
    engine = model(base=0.0, per_prefill_token=0.0, per_decode=0.0, per_kv_token=1.0)
    engine.submit(sequence(10, 4))
    assert engine.start() == 0.0
    engine.finish()
    assert [round(end) for end, _ in run(engine)] == [11, 11 + 12, 11 + 12 + 13]


def test_decodes_run_before_prompts_and_share_the_step_budget():
    engine = model()
    first, second = sequence(10, 50), sequence(300, 1)
    engine.submit(first)
    engine.start()
    engine.finish()
    engine.submit(second)
    engine.start()
    outcome = engine.finish()
    assert (outcome.decoded_tokens, outcome.prefill_tokens) == (1, 99)


def test_several_prompts_share_a_step_and_the_last_is_cut():
    engine = model()
    sequences = [sequence(40, 5) for _ in range(3)]
    for one in sequences:
        engine.submit(one)
    engine.start()
    outcome = engine.finish()
    assert outcome.admitted == sequences
    assert outcome.prefilled == sequences[:2]
    assert outcome.prefill_tokens == 100


def test_waiting_is_first_come_first_served_even_if_a_later_one_would_fit():
    engine = model(kv_tokens=100)
    running, large, small = sequence(60, 3), sequence(80, 1), sequence(5, 1)
    engine.submit(running)
    engine.start()
    engine.finish()
    engine.submit(large)
    engine.submit(small)
    engine.start()
    assert engine.finish().admitted == []
    ends = [one for _, outcome in run(engine) for one in outcome.finished]
    assert ends == [running, large, small]


def test_what_arrives_during_a_step_waits_for_the_next():
    engine = model()
    engine.submit(sequence(10, 2))
    engine.start()
    late = sequence(10, 2)
    engine.submit(late)
    assert late not in engine.finish().admitted
    engine.start()
    assert engine.finish().admitted == [late]


def test_no_more_than_the_sequence_limit_run():
    engine = model()
    for _ in range(6):
        engine.submit(sequence(5, 4))
    engine.start()
    assert len(engine.finish().admitted) == 4
    assert len(engine.waiting) == 2


def test_short_memory_preempts_the_last_admitted_to_the_head_of_the_queue():
    engine = model(kv_tokens=100, max_sequences=2)
    first, second, third = sequence(40, 30), sequence(50, 30), sequence(1, 1)
    for one in (first, second, third):
        engine.submit(one)
    while not (outcome := (engine.start(), engine.finish())[1]).preempted:
        assert engine.kv.used <= 100
    assert outcome.preempted == [second]
    generated = engine.generated(second)
    assert generated == second.generated > 1
    assert list(engine.waiting) == [second, third]
    history = run(engine)
    assert [one for _, outcome in history for one in outcome.admitted] == [second, third]
    assert (first.generated, second.generated) == (30, 30)
    assert second.preemptions == 1
    resumed = [outcome for _, outcome in history if second in outcome.prefilled]
    assert resumed[0].prefill_tokens == 50 + generated + third.prompt_tokens, (
        "its answer so far is computed again with its prompt"
    )


def test_nothing_is_admitted_in_a_step_that_preempts():
    engine = model(kv_tokens=100)
    engine.submit(sequence(45, 50))
    engine.submit(sequence(50, 50))
    engine.start()
    engine.finish()
    engine.submit(sequence(1, 1))
    while not (outcome := (engine.start(), engine.finish())[1]).preempted:
        pass
    assert outcome.admitted == []


def test_cancel_frees_memory_at_once_wherever_the_sequence_is():
    engine = model(max_sequences=2)
    decoding, prefilling, waiting = sequence(10, 9), sequence(500, 9), sequence(5, 9)
    for one in (decoding, prefilling, waiting):
        engine.submit(one)
    engine.start()
    engine.finish()
    engine.start()
    for one in (waiting, prefilling, decoding):
        engine.cancel(one)
    assert engine.kv.used == 0
    assert engine.decoding == 0
    outcome = engine.finish()
    assert (outcome.finished, outcome.prefilled) == ([], [])
    assert engine.start() is None
    engine.cancel(decoding)


def test_cancelling_a_prompt_that_completes_in_the_step_under_way_yields_no_token():
    engine = model()
    one = sequence(10, 9)
    engine.submit(one)
    engine.start()
    engine.cancel(one)
    assert engine.finish().prefilled == []


def test_a_run_of_steps_ends_where_the_same_steps_one_by_one_end():
    def ends(most_steps):
        engine = EngineModel(replace(PROFILES["a100"], kv_tokens=3000))
        for prompt, output in ((700, 40), (900, 300), (100, 7), (1200, 200)):
            engine.submit(sequence(prompt, output))
        return [(end, one.prompt_tokens) for end, outcome in run(engine, most_steps) for one in outcome.finished]

    singly, jumping = ends(1), ends(10**9)
    assert [prompt for _, prompt in singly] == [prompt for _, prompt in jumping]
    assert [end for end, _ in jumping] == pytest.approx([end for end, _ in singly])


def test_a_run_can_be_cut_at_the_step_under_way():
    engine = model()
    one = sequence(10, 101)
    engine.submit(one)
    engine.start()
    engine.finish()
    assert engine.start(10**9) == pytest.approx(100 * 1.001)
    assert engine.cut(10.5) == pytest.approx(11 * 1.001)
    assert engine.finish().steps == 11
    assert engine.generated(one) == 12
    engine.start(10**9)
    assert engine.cut(0.0) == pytest.approx(1.001)


def test_cutting_a_single_step_leaves_its_prompt_time():
    engine = model()
    engine.submit(sequence(50, 2))
    duration = engine.start(10**9)
    assert engine.cut(0.1) == duration == pytest.approx(1.5)


def test_equal_prefixes_are_computed_once_with_the_prefix_cache():
    engine = EngineModel(PLAIN, block_size=10, prefix_cache=True)
    hashes = tuple(range(5))
    engine.submit(sequence(55, 2, hashes))
    engine.start()
    assert engine.finish().prefill_tokens == 55
    again = sequence(57, 2, hashes)
    engine.submit(again)
    engine.start()
    assert engine.finish().prefill_tokens == 7
    assert again.cached_tokens == 50
    run(engine)
    assert engine.kv.used == 0
    assert engine.kv.cached == 50


def test_what_can_never_be_served_is_refused():
    engine = model(kv_tokens=100)
    with pytest.raises(ValueError, match="exceed the KV cache"):
        engine.submit(sequence(60, 42))
    engine.submit(sequence(60, 41))
    with pytest.raises(ValueError, match="at least one"):
        engine.submit(sequence(0, 1))
    with pytest.raises(ValueError, match="below the limit"):
        EngineModel(replace(PLAIN, max_sequences=101))
    with pytest.raises(RuntimeError, match="no step"):
        engine.finish()


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_saturated_throughput_agrees_with_the_fluid_estimate(profile):
    """Many equal sequences: per sequence, its prompt's work and its share of 256 lockstep decodes."""
    prompt, output, count = 600, 200, 1500
    engine = EngineModel(profile)
    for _ in range(count):
        engine.submit(sequence(prompt, output))
    end = run(engine, 10**9)[-1][0]
    prefill = profile.per_prefill_token * prompt + profile.per_attention * prompt**2 / 2
    kv = profile.per_kv_token * output * (prompt + output / 2)
    per_sequence = prefill + profile.per_decode * output + kv + profile.base * output / profile.max_sequences
    assert end / count == pytest.approx(per_sequence, rel=0.12)
