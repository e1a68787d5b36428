"""Models of one batch must not be mixed up: found out before every score, and avoided where vLLM is known to do so."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
from worlds.model_server import RUNS, World, publish_adapter, put, ready, until

from surogate_bench.errors import PermanentError
from surogate_bench.store.object_store import ObjectStore, open_store
from surogate_bench_model_server.adapters.mixing import MixingProbe, distance, find_mix_up
from surogate_bench_model_server.vllm.client import Logprobs

BASE, STRONG, WEAK = ({"1": -1.0, "2": -2.0},), ({"1": -3.0, "2": -2.5},), ({"1": -1.001, "2": -2.0},)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def world(store: ObjectStore, tmp_path: Path) -> Callable[..., World]:
    (tmp_path / "work").mkdir()
    for number, run in enumerate(RUNS):
        publish_adapter(store, run, tmp_path / "made" / run, b=float(number))  # the first one is all zero

    def make(behaviour: str = "well", **changes: object) -> World:
        return World(store, tmp_path / "work", [behaviour], **changes)

    return make


def shifted(logprobs: Logprobs, by: float) -> Logprobs:
    return tuple({token: value + by for token, value in after.items()} for after in logprobs)


def test_the_distance_is_the_mean_absolute_difference_of_the_likeliest_tokens() -> None:
    assert distance(({"1": -1.0, "2": -2.0},), ({"1": -1.5, "2": -1.5},)) == 0.5
    assert distance(({"1": -1.0, "2": -2.0},), ({"3": -1.0, "1": -4.0},)) == 2.5  # token 2 has at most -4


@pytest.mark.parametrize(
    ("answer", "noise", "found"),
    [
        (BASE, 0.0, False),
        (shifted(BASE, 0.009), 0.0, False),  # below the floor
        (shifted(BASE, 0.2), 0.06, False),  # four times the noise of batches
        (shifted(BASE, 0.3), 0.0, False),  # a quarter of the way to the nearest other model
        (shifted(BASE, 0.4), 0.0, True),
        (STRONG, 0.0, True),
        (STRONG, 0.1, True),
    ],
)
def test_an_answer_that_moves_further_than_rounding_is_a_mix_up(answer: Logprobs, noise: float, found: bool) -> None:
    mixed = find_mix_up({"base": BASE, "strong": STRONG}, {"base": [BASE, answer]}, noise)
    assert (mixed is not None) == found


def test_a_hardly_trained_adapter_beside_others_does_not_hide_a_mix_up() -> None:
    mixed = find_mix_up({"base": BASE, "weak": WEAK, "strong": STRONG}, {"base": [STRONG]}, 0.0)
    assert mixed is not None
    assert mixed.message.startswith(
        "base gives other log-probabilities when it is requested together with strong, weak than alone"
    )
    assert mixed.message.endswith("closest to strong")


@pytest.mark.parametrize(
    ("towards", "found"),
    [
        (-0.03, False),  # away from the other model: rounding
        (0.03, False),  # still nearest to itself
        (0.08, True),  # nearest to the other model
        (-0.08, True),
    ],
)
def test_other_rounding_than_before_is_no_mix_up_unless_it_is_nearest_to_another_model(
    towards: float, found: bool
) -> None:
    alone = {"base": BASE, "near": shifted(BASE, 0.1)}
    mixed = find_mix_up(alone, {"base": [BASE, shifted(BASE, towards)]}, 0.0)
    assert (mixed is not None) == found


def test_a_vllm_that_lost_its_adapters_while_it_was_probed_is_asked_again_and_not_given_up(
    world: Callable[..., World],
) -> None:
    async def scenario() -> None:
        served = world()
        async with served.running() as api:
            assert (await put(api, "fp8-s0")).status_code == 200
            (name,) = served.supervisor.adapters.values()
            await served.client.unload_adapter(name)  # as a vLLM that has just been started again
            answer = await api.post("/probe")
            assert (answer.status_code, answer.json()["reason"]) == (503, "TransientError")
            await served.client.load_adapter(name, served.work_dir)
            assert (await api.post("/probe")).status_code == 200

    asyncio.run(scenario())


class Alternating:
    """A vLLM that mixes up its models in the second batch of the probe only."""

    MODELS: ClassVar = {"base": BASE, "strong": STRONG}

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def probe(self, model: str) -> Logprobs:
        self.asked.append(model)
        mixed = self.asked.count("strong") > 3 and model == "base"
        return STRONG if mixed else self.MODELS[model]

    async def generate(self, model: str) -> None:
        """Answer nothing."""


def test_a_mix_up_in_one_of_several_batches_is_a_mix_up() -> None:
    async def scenario() -> None:
        probe = MixingProbe(Alternating())
        await probe.add_base("base")
        await probe.add("strong")
        with pytest.raises(PermanentError, match=r"base gives other log-probabilities.*closest to strong"):
            await probe.check()

    asyncio.run(scenario())


class Ordered:
    """A vLLM that computes a request with what it was asked before, and not with what comes after."""

    def __init__(self) -> None:
        self.generating: set[str] = set()
        self.alone: list[str] = []

    async def probe(self, model: str) -> Logprobs:
        if not self.generating - {model}:
            self.alone.append(model)
        await asyncio.sleep(0)
        return shifted(BASE, 0.0 if model == "base" else 1.0)

    async def generate(self, model: str) -> None:
        self.generating.add(model)
        await asyncio.sleep(0)


def test_no_model_is_probed_before_the_others_generate() -> None:
    async def scenario() -> None:
        server = Ordered()
        probe = MixingProbe(server)
        await probe.add_base("base")
        await probe.add("other")
        server.generating.clear()
        server.alone.clear()
        await probe.check()
        assert server.alone == []

    asyncio.run(scenario())


class Rounding:
    """Models that answer with other last bits where five or more are asked at once."""

    MODELS: ClassVar = {"base": BASE, "one": shifted(BASE, 0.2), "two": shifted(BASE, 0.4)}

    def __init__(self) -> None:
        self.at_once = 0

    async def probe(self, model: str) -> Logprobs:
        self.at_once += 1
        await asyncio.sleep(0)
        by = 0.0 if self.at_once < 5 else -0.08
        await asyncio.sleep(0)
        self.at_once -= 1
        return shifted(self.MODELS[model], by)

    async def generate(self, model: str) -> None:
        """Answer nothing."""


def test_the_noise_of_batches_is_measured_in_batches_as_large_as_those_of_the_probe() -> None:
    async def scenario() -> None:
        probe = MixingProbe(Rounding())
        await probe.add_base("base")
        for name in ("one", "two"):
            await probe.add(name)
        await probe.check()

    asyncio.run(scenario())


def test_models_that_stay_apart_pass_the_probe(world: Callable[..., World]) -> None:
    async def scenario() -> None:
        async with world().running() as api:
            for run in RUNS:
                assert (await put(api, run)).status_code == 200
                assert (await api.post("/probe")).status_code == 200

    asyncio.run(scenario())


def test_a_base_scored_with_an_adapters_weights_ends_the_server(world: Callable[..., World]) -> None:
    async def scenario() -> None:
        served = world("mixes")
        supervising = asyncio.create_task(served.until_it_fails())
        async with served.api() as api:
            await until(lambda: ready(api))
            assert (await api.post("/probe")).status_code == 200  # the base alone
            assert (await put(api, "fp8-s0")).status_code == 200
            refused = await api.post("/probe")
            assert (refused.status_code, refused.json()["reason"]) == (422, "PermanentError")
            assert "vLLM mixes up the models of one batch: base gives other log-probab" in refused.json()["message"]
            with pytest.raises(PermanentError, match="No score of this server can be trusted"):
                await supervising

    asyncio.run(scenario())


def test_on_a_cpu_without_the_plug_in_the_base_is_an_empty_adapter(world: Callable[..., World]) -> None:
    async def scenario() -> None:
        async with world("mixes", platform="cpu").running() as api:
            await until(lambda: ready(api))
            assert (await put(api, "fp8-s0")).status_code == 200
            assert (await api.post("/probe")).status_code == 200
            status = (await api.get("/status")).json()
            assert status["model"] == "base-as-an-adapter"
            assert set(status["adapters"]) == {"fp8-s0"}

    asyncio.run(scenario())


def test_an_empty_adapter_that_is_not_the_base_model_is_refused(world: Callable[..., World]) -> None:
    with pytest.raises(PermanentError, match="does not compute the base model under an empty adapter"):
        asyncio.run(world("differs", platform="cpu").until_it_fails())


@pytest.mark.parametrize(
    ("behaviour", "run", "status"),
    [
        ("ignores", "bf16-s0", 200),  # all B matrices are zero
        ("faint", "fp8-s0", 200),
        ("ignores", "fp8-s0", 422),
    ],
)
def test_an_adapter_that_answers_as_the_base_is_served_if_it_should(
    world: Callable[..., World], behaviour: str, run: str, status: int
) -> None:
    async def scenario() -> None:
        served = world(behaviour)
        async with served.running() as api:
            assert (await put(api, run)).status_code == status
            listed = await served.client.models()
            assert len(listed) == (2 if status == 200 else 1)
            folders = {path.name for path in (served.work_dir / "adapters").iterdir()}
            assert not any("amplified" in name for name in folders)

    asyncio.run(scenario())
