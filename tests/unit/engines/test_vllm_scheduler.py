"""The scheduler class for vLLM, against a stand-in of vLLM's scheduler in three generations of its interface.

Aspects: import without vLLM; order of the queue; what has cost work stays in front; nothing is lost; parameters; memory
and speed that it learns; the time that ordering takes.
"""

import importlib.util
import subprocess
import sys
from random import Random
from types import ModuleType, SimpleNamespace

import pytest

import vllm_stand_in
from halffull.engines import vllm_scheduler
from vllm_stand_in import GENERATIONS, Request

STEP_S = 0.05


class Clock:
    """Stands for module `time`. A step lasts as long as it is told."""

    def __init__(self) -> None:
        self.now = 1.7e9
        self.elapsed = 0.0
        self.cost_s = 0.0
        """of looking at `perf_counter`: what ordering takes"""

    def time(self) -> float:
        return self.now

    def perf_counter(self) -> float:
        self.elapsed += self.cost_s
        return self.elapsed

    def step(self) -> None:
        self.now += STEP_S
        self.elapsed += STEP_S


@pytest.fixture
def clock() -> Clock:
    return Clock()


def load(generation: str, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the module as a vLLM of this generation imports it."""
    with monkeypatch.context() as patch:
        for name, module in vllm_stand_in.modules(generation).items():
            patch.setitem(sys.modules, name, module)
        spec = importlib.util.spec_from_file_location("loaded_by_vllm", vllm_scheduler.__file__)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    module.time = clock
    return module


def config(policy: str = "fcfs", sequences: int = 2, blocks: int = 1000, **parameters: object) -> SimpleNamespace:
    return SimpleNamespace(
        scheduler_config=SimpleNamespace(policy=policy, max_num_seqs=sequences, max_num_batched_tokens=512),
        cache_config=SimpleNamespace(num_gpu_blocks=blocks, block_size=vllm_stand_in.BLOCK),
        additional_config={"halffull": parameters} if parameters else {},
    )


def make(module: ModuleType, generation: str, vllm_config: SimpleNamespace):
    """Build it as vLLM's engine does, by keyword."""
    parts = {"vllm_config": vllm_config, "kv_cache_config": None, "structured_output_manager": None}
    return module.Larry(**parts | ({} if generation == "0.9" else {"block_size": vllm_stand_in.BLOCK}))


@pytest.fixture(params=GENERATIONS)
def build(request, clock, monkeypatch):
    module = load(request.param, clock, monkeypatch)
    return lambda **options: make(module, request.param, config(**options))


def run(scheduler, clock: Clock, steps: int = 2000) -> list[str]:
    """Step until nothing is left; return who ended, in this order."""
    ended = []
    for _ in range(steps):
        output = scheduler.schedule()
        clock.step()
        ended += [request.request_id for request in scheduler.update_from_output(output)]
        if not (scheduler.running or scheduler.waiting or getattr(scheduler, "skipped_waiting", ())):
            return ended
    raise AssertionError(f"not done after {steps} steps: {ended}")


def add(scheduler, clock: Clock, name: str, prompt: int, tokens: int = 2) -> Request:
    request = Request(name, clock.time(), prompt, tokens)
    scheduler.add_request(request)
    return request


def test_import_without_vllm_is_harmless():
    with pytest.raises(ImportError, match="runs inside vLLM"):
        vllm_scheduler.Larry(vllm_config=None)


def test_it_brings_nothing_into_vllm_but_core_and_orderings():
    script = "import sys; before = set(sys.modules); import halffull.engines.vllm_scheduler; print(*(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    ours = {name for name in loaded if name.startswith("halffull")}
    assert {".".join(name.split(".")[1:2]) for name in ours} == {"", "core", "orderings", "engines"}
    assert {name for name in ours if name.startswith("halffull.engines")} == {
        "halffull.engines",
        "halffull.engines.vllm_scheduler",
    }
    assert {name.split(".")[0] for name in loaded} <= set(sys.stdlib_module_names) | {"halffull"}


@pytest.mark.parametrize("generation", GENERATIONS)
def test_the_classes_are_schedulers_of_vllm(generation, clock, monkeypatch):
    module = load(generation, clock, monkeypatch)
    assert issubclass(module.LarrySync, module.Scheduler)
    assert issubclass(module.Larry, module.AsyncScheduler)
    assert (module.AsyncScheduler is module.Scheduler) == (generation == "0.9")


def test_long_prompts_step_back(build, clock):
    scheduler = build(sequences=1, kappa=1000)
    add(scheduler, clock, "runs", 16)
    scheduler.update_from_output(scheduler.schedule())
    for name, prompt in (("long", 5000), ("middle", 500), ("short", 10)):
        add(scheduler, clock, name, prompt)
        clock.step()
    assert run(scheduler, clock) == ["runs", "short", "middle", "long"]


def test_without_kappa_it_is_first_come_first_served(build, clock):
    scheduler = build(sequences=1, kappa=0)
    for name, prompt in (("long", 5000), ("short", 10)):
        add(scheduler, clock, name, prompt)
        clock.step()
    assert run(scheduler, clock) == ["long", "short"]


def test_long_prompts_age_back_in(build, clock):
    """A stream of short prompts without end does not starve a long one: no more pass it than come in its step back."""
    scheduler = build(sequences=1, kappa=10)
    add(scheduler, clock, "long", 500)
    ended: list[str] = []
    for number in range(4000):
        if not number % 2:
            add(scheduler, clock, str(number), 10)
        output = scheduler.schedule()
        clock.step()
        ended += [request.request_id for request in scheduler.update_from_output(output)]
        if "long" in ended:
            break
    assert 5 <= ended.index("long") <= 600


def test_what_has_cost_work_stays_in_front(build, clock):
    """Memory for 640 tokens: the second answer is pre-empted, and comes back before shorter prompts."""
    scheduler = build(blocks=40, kappa=1000)
    first, second = (add(scheduler, clock, name, 300, 60) for name in ("first", "second"))
    while not second.num_preemptions:
        output = scheduler.schedule()
        clock.step()
        scheduler.update_from_output(output)
    add(scheduler, clock, "short", 1, 1)
    started: list[str] = []
    while set(started) != {"second", "short"}:
        scheduled = scheduler.schedule()
        clock.step()
        scheduler.update_from_output(scheduled)
        started += [name for name in scheduled.num_scheduled_tokens if name not in {"first", *started}]
    assert started == ["second", "short"]
    assert first.num_preemptions == 0


def test_requests_that_are_skipped_come_back(build, clock):
    scheduler = build(sequences=1, kappa=1000)
    scheduler.skipped |= {"a", "b"}
    for name, prompt in (("a", 500), ("b", 10), ("c", 200)):
        add(scheduler, clock, name, prompt)
    ended = []
    while ended != ["c"]:
        output = scheduler.schedule()
        clock.step()
        ended += [request.request_id for request in scheduler.update_from_output(output)]
    scheduler.skipped.clear()
    assert run(scheduler, clock) == ["b", "a"]


@pytest.mark.parametrize("seed", range(5))
def test_every_request_is_served_once(build, clock, seed):
    rng = Random(seed)
    scheduler = build(sequences=4, blocks=80)
    names = [str(number) for number in range(60)]
    ended: list[str] = []
    for name in names:
        add(scheduler, clock, name, rng.randrange(1, 900), rng.randrange(1, 100))
        for _ in range(rng.randrange(4)):
            output = scheduler.schedule()
            clock.step()
            ended += [request.request_id for request in scheduler.update_from_output(output)]
    ended += run(scheduler, clock, steps=20_000)
    assert sorted(ended) == sorted(names)
    assert len(scheduler._known) <= 1  # nothing is remembered of those that are gone


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"policy": "priority"}, "--scheduling-policy fcfs"),
        ({"kappa": -1}, "kappa=-1"),
        ({"kappa": "much"}, "kappa='much'"),
        ({"kapa": 1}, "kapa=1"),
    ],
)
def test_wrong_options_end_the_start(build, options, words):
    with pytest.raises(ValueError, match=words):
        build(**options)


def test_it_learns_memory_and_speed(build, clock):
    """512 tokens a step of 50 ms are 10,240 tokens per second; 1,000 of 16,000 tokens of memory are in use."""
    scheduler = build(blocks=1000)
    add(scheduler, clock, "prompt", 512 * 40, 4)
    for _ in range(40):
        scheduler.update_from_output(scheduler.schedule())
        clock.step()
    scheduler.kv_cache_manager.held = {"all": 63}
    scheduler.schedule()
    assert scheduler._engine.prefill_rate == pytest.approx(512 / STEP_S, rel=0.1)
    assert scheduler._context.books.kv_pressure == pytest.approx(0.063)


def test_ordering_takes_a_small_share_of_the_time(build, clock):
    """Where it lasts as long as a step, it is done in one of fifty."""
    scheduler = build(sequences=1, kappa=1000)
    add(scheduler, clock, "runs", 16, 2000)
    for number in range(10):
        add(scheduler, clock, str(number), 100 - number)
    orders = 0
    order = scheduler._order

    def count(queue: object) -> None:
        nonlocal orders
        orders += 1
        order(queue)

    scheduler._order = count
    clock.cost_s = STEP_S
    for _ in range(500):
        scheduler.update_from_output(scheduler.schedule())
        clock.step()
    assert 5 <= orders <= 20
