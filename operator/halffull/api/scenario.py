"""The document that says what `halffull simulate` runs: requests, replicas, routers, and the schedulers to compare.

A YAML file, or the command's flags, make one; `sim.presets` knows the workloads by name.
"""

from typing import Annotated, Literal

from pydantic import Field

from halffull.api.base import Document, Rule
from halffull.api.scheduling import Scheduling
from halffull.api.values import Count, Items, Seconds, SecondsOrZero

Factor = Annotated[float, Field(gt=0, le=1000)]
Part = Annotated[float, Field(ge=0, le=1)]


class Slowdown(Document):
    """A replica that is slower for some time."""

    replica: Annotated[int, Field(ge=0)]
    """Index of the replica, from 0."""
    factor: Factor
    """How many times as long its steps last, on top of its speed."""
    from_seconds: SecondsOrZero = 0.0
    """When it begins, seconds of simulated time."""
    for_seconds: Seconds | None = None
    """How long it lasts; absent: to the end."""


class Outage(Document):
    """A replica whose engine dies with all that it holds, and comes back empty."""

    replica: Annotated[int, Field(ge=0)]
    """Index of the replica, from 0."""
    at_seconds: SecondsOrZero
    """When, seconds of simulated time."""
    for_seconds: Seconds = 60.0
    """How long it is away."""
    noticed_seconds: SecondsOrZero = 1.0
    """How long it takes until discovery says so; until then connections to it fail."""


class Others(Document):
    """Clients that go to one engine directly, past the routers."""

    replica: Annotated[int, Field(ge=0)]
    """Index of the replica, from 0."""
    load: Factor = 0.3
    """Their requests over those that one saturated replica serves; they are like the workload's."""


class Engines(Document):
    """The replicas."""

    count: Count = 8
    """How many there are."""
    speeds: Items[Factor] = ()
    """Speed of each relative to the profile, repeated for the rest; empty: all are equal."""
    speeds_told: bool = False
    """Whether routers are told the true speeds; else they learn them."""
    slowdowns: Items[Slowdown] = ()
    """Replicas that slow down in mid-run."""
    outages: Items[Outage] = ()
    """Replicas that die in mid-run."""
    others: Items[Others] = ()
    """Load of others on single replicas."""
    kv_parts: Items[Factor] = ()
    """KV cache of each relative to `kvTokens`, repeated for the rest; empty: all are equal."""
    profile: Literal["a100", "h100"] | None = None
    """GPU that is modelled; absent: the workload's."""
    kv_tokens: Count | None = None
    """Tokens that the KV cache of each holds; absent: the workload's."""
    max_batched_tokens: Count | None = None
    """Tokens that one step computes at most; absent: the workload's."""
    max_sequences: Count | None = None
    """Sequences that run at once; absent: the profile's."""
    prefix_cache: bool | None = None
    """Whether blocks of equal prompts are computed once; absent: the workload's."""


class Sessions(Document):
    """Conversations of several turns: each prompt begins with all that was said before."""

    turns: Count = 4
    """Turns of one conversation: this many successive requests of the workload."""
    think_seconds: SecondsOrZero = 10.0
    """Mean time from an answer to the next turn; exponential."""


class Clients(Document):
    """What requests are like, besides their lengths."""

    streamed: Part = 1.0
    """Share of requests whose answers are streamed: a router sees the first token of these alone."""
    token_bias: Factor = 1.0
    """What the router's estimate of prompt tokens is multiplied by."""
    token_noise: Annotated[float, Field(ge=0, le=3)] = 0.0
    """Spread (sigma of a lognormal factor) of the estimate around the truth."""
    urgent: Part = 0.0
    """Share of requests in the first of two priority classes."""
    callers: Count = 1
    """Number of callers, of whom each request has one at random."""
    sessions: Sessions | None = None
    """Absent: each request stands alone."""


class Routers(Document):
    """The routers; each request meets one of them at random."""

    count: Count = 1
    """How many there are, each with its own books and queue."""
    share_seconds: Seconds | None = None
    """How long a change in the books of one takes at most to reach the others; absent: they tell each other nothing."""
    dispatch_seconds: SecondsOrZero = 0.0
    """Time from a decision to the request's arrival at the engine."""
    signals_seconds: Seconds = 0.2
    """Time between two scrapes of an engine's metrics."""
    signals_lag_seconds: SecondsOrZero = 0.0
    """How old a scraped value is when it is read."""
    rebalance_seconds: Seconds | None = None
    """Time between two looks of the operator's rebalancer; absent: there is none."""


class Objective(Document):
    """When a request counts as good, and how many must be."""

    ttft_seconds: Seconds = 2.0
    """Time to the first token that is good."""
    slowdown: Factor | None = None
    """Instead: time to the first token over that of the request alone on one replica, that is good."""
    share: Part = 0.95
    """Share of requests that must be good."""


class Contender(Document):
    """One scheduler of the comparison."""

    name: Annotated[str, Field(min_length=1, max_length=60)]
    """What it is called in tables."""
    scheduling: Scheduling
    """Policy, ordering, gate and their parameters, as in a ModelDeployment; the queue's bounds are not used."""
    bound: Literal["none", "super", "oracle"] = "none"
    """`super`: one replica as large as all together takes the place of the fleet; `oracle`: the scheduler knows how long answers will be. Bounds, not schedulers."""


class Scenario(Document):
    """Everything that one comparison depends on."""

    rules = (
        Rule(
            "give load or rate, not both",
            "!(has(self.load) && has(self.rate))",
            lambda scenario: scenario.load is None or scenario.rate is None,
            "rate",
        ),
    )

    workload: str = "convP"
    """Name of a preset: lengths, arrivals, GPU and memory."""
    trace: str | None = None
    """File of requests (what routers recorded, Azure's CSV, Mooncake's JSON lines), or a directory that holds the workload's; absent: the lengths that ship with halffull."""
    requests: Count | None = None
    """Requests to run; absent: the trace's, or 20,000 of lengths alone."""
    arrivals: Literal["trace", "poisson"] | None = None
    """When they come: as recorded, in another tempo, or independently; absent: the workload's."""
    load: Factor | None = None
    """Arrival rate over the throughput of all replicas when saturated; absent without `rate`: as routers recorded it, else 0.9."""
    rate: Factor | None = None
    """Arrival rate, requests a second."""
    seeds: Count = 3
    """Runs of each contender, with lengths and arrivals permuted."""
    engines: Engines = Engines()
    clients: Clients = Clients()
    routers: Routers = Routers()
    objective: Objective = Objective()
    contenders: Items[Contender] = ()
    """The schedulers to compare; the first one is the baseline unless `baseline` names another."""
    baseline: str | None = None
    """Name of the contender that the others are compared with."""
