"""Check that served models do not affect each other when one batch holds tokens of several of them.

vLLM's own LoRA code for CPUs gives tokens of the base model the adapter in the last slot when the batch holds tokens of
other adapters. Such a fault changes scores without an error, so it is checked before every evaluation: each model
returns the log-probabilities of the likeliest tokens after fixed prompts, once when it is loaded, and again while all
models are requested together.

The composition of a batch changes last bits, so answers are compared with a tolerance (nats, mean over prompts and
tokens): the largest of a floor, four times the difference that batches of several sizes make for the base model, and a
quarter of the difference between the model and the one nearest to it. Where no other model is nearer to the answer, the
floor is higher: kernels for other batch sizes round otherwise, which moves logits in bf16 by up to an
eighth each.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from surogate_bench.errors import PermanentError, TransientError
from surogate_bench_model_server.vllm.client import Logprobs, VllmClient

_FLOOR = 0.01
_FLOOR_NEAREST_ITSELF = 0.05
_NOISE_FACTOR = 4.0
_NEAREST_FACTOR = 0.25
_NOISE_COPIES = (1, 2, 4, 8)
_COPIES = 2
_ROUNDS = 2


def distance(one: Logprobs, other: Logprobs) -> float:
    """Mean absolute difference of the log-probabilities of the tokens of ``one`` (nats).

    A token that ``other`` does not list has at most the lowest log-probability there, which is taken.
    """
    differences = [
        abs(logprob - after_there.get(token, min(after_there.values())))
        for after_here, after_there in zip(one, other, strict=True)
        for token, logprob in after_here.items()
    ]
    return sum(differences) / len(differences)


@dataclass(frozen=True, slots=True)
class MixUp:
    """A model whose answers in a mixed batch differ from those it gives alone."""

    message: str
    is_another: bool
    """Its answer is nearest to another model's, which rounding cannot cause."""


def find_mix_up(
    alone: Mapping[str, Logprobs], together: Mapping[str, Sequence[Logprobs]], noise: float
) -> MixUp | None:
    """Compare what models answer together with what each answered alone.

    Args:
        alone: Log-probabilities by model.
        together: Log-probabilities of one or more equal requests by model, from batches of all models.
        noise: Distance that batches alone cause.

    Returns:
        The first model whose answers differ by more than the tolerance; None if there is none.
    """
    for model, answers in together.items():
        others = {name: distance(alone[model], logprobs) for name, logprobs in alone.items() if name != model}
        nearest = min(others.values(), default=0.0)
        tolerance = max(_FLOOR, _NOISE_FACTOR * noise, _NEAREST_FACTOR * nearest)
        worst = max(answers, key=lambda answer: distance(alone[model], answer))
        closest = min(alone, key=lambda name: distance(alone[name], worst))
        if closest == model:
            tolerance = max(tolerance, _FLOOR_NEAREST_ITSELF)
        if (difference := distance(alone[model], worst)) > tolerance:
            message = (
                f"{model} gives other log-probabilities when it is requested together with {', '.join(sorted(others))} "
                f"than alone (by {difference:.3g} nats, tolerance {tolerance:.3g}), closest to {closest}"
            )
            return MixUp(message, is_another=closest != model)
    return None


@dataclass(slots=True)
class MixingProbe:
    """Requests vLLM's models alone and together. TransientError of the client passes through."""

    client: VllmClient
    _alone: dict[str, Logprobs] = field(default_factory=dict)
    _noise: float = 0.0

    async def add_base(self, model: str) -> Logprobs:
        """Record the base model's answers, and return them; called before any adapter is loaded."""
        alone = await self.add(model)
        batches = [await self._ask({model: copies}) for copies in _NOISE_COPIES]
        self._noise = max(distance(alone, answer) for answers in batches for answer in answers[model])
        return alone

    async def replace_base(self, model: str, stand_in: str) -> None:
        """Record that an adapter stands in for the base model.

        Raises:
            PermanentError: its answers differ from the base model's.
        """
        expected = self._alone.pop(model)
        difference = distance(expected, await self.add(stand_in))
        if difference > (tolerance := max(_FLOOR, _NOISE_FACTOR * self._noise)):
            raise PermanentError(
                f"vLLM does not compute the base model under an empty adapter: log-probabilities differ by "
                f"{difference:.3g} nats (tolerance {tolerance:.3g}), so the base cannot be scored here"
            )

    async def add(self, model: str) -> Logprobs:
        """Record a loaded adapter's answers, and return them."""
        self._alone[model] = await self.client.probe(model)
        return self._alone[model]

    def remove(self, model: str) -> None:
        """Remove a model that is no longer served."""
        self._alone.pop(model, None)

    async def check(self) -> None:
        """Request all models together.

        Raises:
            PermanentError: one of them answers differently than alone.
            TransientError: vLLM refuses a probe: it was started again meanwhile, and does not serve all models yet.
        """
        if len(self._alone) < 2:  # noqa: PLR2004 - a single model has no other to be mixed up with
            return
        found = [await self._round() for _ in range(_ROUNDS)]
        mix_ups = [each for each in found if each is not None]
        if len(mix_ups) == _ROUNDS or any(each.is_another for each in mix_ups):
            raise PermanentError(
                f"vLLM mixes up the models of one batch: {mix_ups[0].message}. No score of this server can be trusted. "
                "Serve with the version of vLLM that surogate-bench is installed with, and without further plug-ins."
            )

    async def _round(self) -> MixUp | None:
        try:
            together = await self._ask(dict.fromkeys(self._alone, _COPIES))
        except PermanentError as error:
            raise TransientError(f"the served models could not be requested together: {error}") from error
        return find_mix_up(self._alone, together, self._noise)

    async def _ask(self, copies: Mapping[str, int]) -> dict[str, list[Logprobs]]:
        """Send all requests at once, alternating between models that generate already: batches then hold all of them.

        A request that comes first, or after those of one model only, would be computed without the others.
        """
        repetitions = range(max(copies.values()))
        models = [model for number in repetitions for model, count in copies.items() if number < count]
        _, answers = await asyncio.gather(
            asyncio.gather(*(self.client.generate(model) for model in copies)),
            asyncio.gather(*(self.client.probe(model) for model in models)),
        )
        together: dict[str, list[Logprobs]] = {model: [] for model in copies}
        for model, answer in zip(models, answers, strict=True):
            together[model].append(answer)
        return together
